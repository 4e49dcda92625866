"""Memory, as all of the native core sees it: the bytes of Python's buffers, blocks of zeros, digests that say nothing."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer


cdef class Held:
    """The bytes of a buffer, which stay where they are for as long as this object is referred to.

    Raises TypeError for what is no buffer, BufferError for one that cannot be written or is in pieces.
    """

    def __cinit__(self, buffer, bint writable=False):
        PyObject_GetBuffer(buffer, &self._view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.data = <uint8_t *>self._view.buf
        self.length = self._view.len

    def __dealloc__(self):
        # Of a view that was never taken it does nothing.
        PyBuffer_Release(&self._view)
