# cython: language_level=3
from cpython.buffer cimport Py_buffer
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp


cdef class Held:
    cdef Py_buffer _view
    cdef uint8_t *data
    cdef int64_t length


cdef inline bint all_zero(const uint8_t *data, int64_t length) noexcept nogil:
    if length == 0:
        return True
    if data[0] != 0:
        return False
    return memcmp(data, data + 1, <size_t>(length - 1)) == 0


cdef inline bint is_expected(const uint8_t *digest, const uint8_t *expected, int64_t width) noexcept nogil:
    """Whether a block is known to be the same: an expected digest of zeros is none."""
    return memcmp(digest, expected, <size_t>width) == 0 and not all_zero(expected, width)
