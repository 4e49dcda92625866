# cython: boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""What the ends of the wire do to a segment, natively: find the runs that differ, and make holes."""

from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t

from blocksync._memory cimport Held, all_zero, is_expected

cdef extern from "<fcntl.h>" nogil:
    int c_fallocate "fallocate"(int fd, int mode, int64_t offset, int64_t length)
    int FALLOC_FL_KEEP_SIZE
    int FALLOC_FL_PUNCH_HOLE
    int FALLOC_FL_ZERO_RANGE


cdef struct Run:
    int64_t start
    int64_t end
    bint zero


cdef bint next_run(
    Run *run,
    const uint8_t *data,
    int64_t length,
    int64_t block,
    const uint8_t *digests,
    const uint8_t *expected,
    int64_t width,
) noexcept nogil:
    """The first run from `run.end` on; false when there is none."""
    cdef int64_t at = run.end, n, slot
    cdef bint zero
    run.start = -1
    while at < length:
        n = min(block, length - at)
        slot = at // block * width
        if is_expected(digests + slot, expected + slot, width):
            if run.start >= 0:
                break
        else:
            zero = all_zero(data + at, n)
            if run.start < 0:
                run.start = at
                run.zero = zero
            elif zero != run.zero:
                break
        at += n
    run.end = at
    return run.start >= 0


def find_runs(data, int64_t length, int64_t block_size, digests, expected, int64_t width):
    """The runs of neighbouring blocks among the first `length` bytes of `data` whose digest is not the expected one.

    `digests` and `expected` hold `width` bytes a block. Returns (start, end, all zero) of each, in bytes; a run is
    all zeros or has no block of zeros.
    """
    cdef Held held = Held(data), slots = Held(digests), known = Held(expected)
    cdef int64_t blocks
    cdef Run run = Run(0, 0, False)
    cdef bint found
    if length < 0 or block_size <= 0 or width <= 0:
        raise ValueError("length is not negative, block_size and width are above zero")
    blocks = (length + block_size - 1) // block_size
    if held.length < length or slots.length // width < blocks or known.length // width < blocks:
        raise ValueError("a buffer is smaller than what is compared")
    runs = []
    while True:
        with nogil:
            found = next_run(&run, held.data, length, block_size, slots.data, known.data, width)
        if not found:
            return runs
        runs.append((run.start, run.end, run.zero))


def has_unknown(digests, int64_t width):
    """Whether one of the digests, `width` bytes each, is all zero: a block that is not known."""
    cdef Held held = Held(digests)
    cdef int64_t at = 0
    cdef bint found = False
    if width <= 0:
        raise ValueError("width is above zero")
    with nogil:
        while at + width <= held.length and not found:
            found = all_zero(held.data + at, width)
            at += width
    return found


cdef bint allocate(int fd, int mode, int64_t offset, int64_t length) noexcept nogil:
    while c_fallocate(fd, mode, offset, length) != 0:
        if errno != EINTR:
            return False
    return True


def punch(int fd, int64_t offset, int64_t length):
    """Make a hole of zeros, or let the device zero the range. False where neither is possible."""
    cdef bint done
    with nogil:
        done = allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)
        if not done:
            done = allocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length)
    return done
