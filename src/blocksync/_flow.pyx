# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""Bytes through non-blocking descriptors, natively: a frame comes in dozens of pieces, and none costs Python.

Both functions work for a bounded time, so that whoever calls them sees to deadlines, rates and closed links.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t
from libc.string cimport strerror

from blocksync._memory cimport Held

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t c_readv "readv"(int fd, const iovec *parts, int count)
    ssize_t c_writev "writev"(int fd, const iovec *parts, int count)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int c_poll "poll"(pollfd *descriptors, unsigned long count, int milliseconds)
    short POLLIN
    short POLLOUT

cdef extern from "clock.h" nogil:
    int64_t monotonic_ns()
    void sleep_ns(int64_t ns)

cdef enum:
    MOST_PARTS = 4
    NS_A_MS = 1_000_000
    # With this much still to move, the other end gets a moment to fill or empty the pipe: a few large pieces
    # cost less than many small ones, each with a change of process.
    MUCH = 128 * 1024
    MOMENT_NS = 500_000


cdef void advance(iovec *parts, int *first, int count, size_t moved) noexcept nogil:
    while first[0] < count and moved >= parts[first[0]].iov_len:
        moved -= parts[first[0]].iov_len
        first[0] += 1
    if first[0] < count:
        parts[first[0]].iov_base = <char *>parts[first[0]].iov_base + moved
        parts[first[0]].iov_len -= moved


cdef int64_t move(int fd, iovec *parts, int count, int64_t total, bint reading, int64_t milliseconds, bint *ended) noexcept nogil:
    """Bytes moved before `total` was reached, the time was up, the end came, or an error (errno, else 0)."""
    cdef int64_t done = 0, until = monotonic_ns() + milliseconds * NS_A_MS, left
    cdef int first = 0, ready
    cdef ssize_t moved
    cdef pollfd waiting
    waiting.fd = fd
    waiting.events = POLLIN if reading else POLLOUT
    ended[0] = False
    while done < total:
        if reading:
            moved = c_readv(fd, parts + first, count - first)
        else:
            moved = c_writev(fd, parts + first, count - first)
        if moved > 0:
            done += moved
            advance(parts, &first, count, <size_t>moved)
            continue
        if moved == 0:
            ended[0] = True
            break
        if errno == EINTR:
            continue
        if errno != EAGAIN:
            return done
        left = until - monotonic_ns()
        if left <= 0:
            break
        if total - done >= MUCH:
            sleep_ns(min(left, MOMENT_NS))
        ready = c_poll(&waiting, 1, <int>(left // NS_A_MS) + 1)
        if ready < 0 and errno != EINTR:
            return done
    (&errno)[0] = 0
    return done


def _move(int fd, buffers, bint reading, int64_t milliseconds):
    cdef iovec parts[MOST_PARTS]
    cdef int count = 0, error
    cdef int64_t total = 0, done
    cdef bint ended
    cdef Held part
    if len(buffers) > MOST_PARTS:
        raise ValueError(f"{len(buffers)} buffers, {MOST_PARTS} are the most")
    held = [Held(buffer, writable=reading) for buffer in buffers]
    for part in held:
        parts[count] = iovec(part.data, <size_t>part.length)
        total += part.length
        count += 1
    with nogil:
        done = move(fd, parts, count, total, reading, milliseconds, &ended)
        error = errno
    if error and done == 0:
        raise OSError(error, strerror(error).decode())
    return done, ended


def fill(int fd, buffers, int64_t milliseconds):
    """Fill at most four buffers, one after the other, with what comes within so many milliseconds.

    Returns (bytes, whether the stream ended). Raises OSError; bytes that came before an error are returned first.
    """
    return _move(fd, buffers, True, milliseconds)


def drain(int fd, buffers, int64_t milliseconds):
    """Write at most four buffers, one after the other, as far as they are taken within so many milliseconds.

    Returns the bytes written. Raises OSError; when some were written before an error, the next call raises it.
    """
    return _move(fd, buffers, False, milliseconds)[0]
