"""The table of parameters behind SGD and the gradient accumulator. Built once: it holds no hot loop.

Design
  (A) The table lists parameters, not arrays: `.data` and `.grad` are attributes that a user may assign. They are read
      at every call (about 50 ns a parameter) and nothing about them is remembered but their size.
  (B) Large tensors are cut into pieces of fixed size and small ones gathered into blocks of about as many bytes, so
      that the work divides evenly and twenty biases cost one block. The cut depends on the shapes alone.
  (C) With `by_rows` pieces hold whole rows, so that a row's norm is known while the row is in cache.
  (D) An array that kernels cannot use directly (strided, byte-swapped, misaligned) is worked on as a contiguous copy
      and written back: rare, correct, and no concern of the kernels.
  (E) A call has the table's pointers, partial sums and copies for itself, and its arrays live till it is done: one that
      comes while another thread is at work gets a twin. What they write into the same arrays is theirs to order, as
      with NumPy's operations in place; that memory stays whole is ours.
"""

cimport numpy as cnp
from libc.stdlib cimport calloc, free

import numpy as np

cnp.import_array()

__all__ = ["TensorTable"]


cdef class TensorTable:
    """All arrays of `parameters` as one list of pieces.

    Parameters
    ----------
    parameters : list
        Objects with attributes `data`, `grad` (arrays) and `decay`.
    names : list of str
        What error messages call them.
    groups : list of int
        The parameter group of each.
    by_rows : bool
        Whether pieces hold whole rows.
    """

    def __cinit__(self, list parameters, list names, list groups, bint by_rows):
        cdef Py_ssize_t i, count, step, start, pieces = 0, size = 0
        cdef Tensor* tensor
        cdef Piece* piece
        self.tensors = len(parameters)
        self.parameters, self.names, self.by_rows = parameters, names, by_rows
        self.groups = 1 + max(groups, default=-1)
        self.held = [None] * (2 * self.tensors)
        self.copies = []
        self.states = [None] * STATES
        self.table.tensors = <Tensor*>calloc(self.tensors + 1, sizeof(Tensor))
        if self.table.tensors == NULL:
            raise MemoryError
        for i in range(self.tensors):
            tensor = &self.table.tensors[i]
            data = parameters[i].data
            tensor.size = data.size
            tensor.row = data.size // data.shape[0] if data.ndim > 1 and data.size > 0 else 0
            tensor.group = groups[i]
            tensor.wide = data.dtype.itemsize == 8
            self.wide |= tensor.wide
            self.nbytes += data.nbytes
            step = piece_size(tensor, by_rows)
            pieces += (tensor.size + step - 1) // step
        self.table.pieces = <Piece*>calloc(pieces + 1, sizeof(Piece))
        self.table.first = <Py_ssize_t*>calloc(pieces + 1, sizeof(Py_ssize_t))
        self.table.partial = <double*>calloc(2 * pieces + 1, sizeof(double))
        if self.table.pieces == NULL or self.table.first == NULL or self.table.partial == NULL:
            raise MemoryError
        for i in range(self.tensors):
            tensor = &self.table.tensors[i]
            step = piece_size(tensor, by_rows)
            for start in range(0, tensor.size, step):
                piece = &self.table.pieces[self.pieces]
                piece.tensor, piece.start, piece.stop = i, start, min(start + step, tensor.size)
                count = piece.stop - piece.start
                if self.pieces > 0 and size + count <= PIECE:
                    size += count
                else:
                    size = count
                    self.table.first[self.blocks] = self.pieces
                    self.blocks += 1
                self.pieces += 1
        self.table.first[self.blocks] = self.pieces

    def __dealloc__(self):
        free(self.table.tensors)
        free(self.table.pieces)
        free(self.table.first)
        free(self.table.partial)

    def bind(self, int slot, list arrays):
        """Make `arrays` (contiguous, as the owner allocated them; None where absent) the parameters' state `slot`."""
        states = self.states.copy()     # a call at work goes by the old list, and keeps its arrays
        states[slot] = list(arrays)
        self.states = states

    def __reduce__(self):
        cdef Py_ssize_t i
        groups = [self.table.tensors[i].group for i in range(self.tensors)]
        return TensorTable, (self.parameters, self.names, groups, self.by_rows), (self.forms(), self.states)

    def __setstate__(self, tuple state):
        forms, states = state
        if forms != self.forms():   # then the states do not fit
            raise ValueError("parameters must have the sizes and dtypes that they had at first")
        self.states = states

    cdef list forms(self):
        cdef Py_ssize_t i
        return [(self.table.tensors[i].size, bool(self.table.tensors[i].wide)) for i in range(self.tensors)]

    cdef TensorTable ready(self, bint write_data, bint write_grad):
        cdef TensorTable table = self
        if self.busy:
            make, arguments, state = self.__reduce__()
            table = make(*arguments)
            table.__setstate__(state)
        table.busy = True
        try:
            table.refresh(write_data, write_grad)
        except BaseException:
            table.busy = False
            raise
        return table

    cdef int refresh(self, bint write_data, bint write_grad) except -1:
        cdef Py_ssize_t i
        cdef int slot
        cdef Tensor* tensor
        if self.bound is not self.states:
            self.bound = self.states
            for slot in range(STATES):
                arrays = self.bound[slot]
                for i in range(self.tensors):
                    array = None if arrays is None else (<list>arrays)[i]
                    self.table.tensors[i].state[slot] = NULL if array is None else cnp.PyArray_DATA(array)
        self.copies.clear()
        for i in range(self.tensors):
            tensor = &self.table.tensors[i]
            parameter = self.parameters[i]
            data, grad = parameter.data, parameter.grad
            if not (direct(data, tensor, write_data) and direct(grad, tensor, write_grad)
                    and cnp.PyArray_SAMESHAPE(data, grad)):
                data, grad = self.usable(i, data, grad, write_data, write_grad)
            tensor.data, tensor.grad = cnp.PyArray_DATA(data), cnp.PyArray_DATA(grad)
            tensor.decay = parameter.decay
            self.held[2 * i], self.held[2 * i + 1] = data, grad
        return 0

    cdef tuple usable(self, Py_ssize_t i, object data, object grad, bint write_data, bint write_grad):
        # (data, grad) as arrays that kernels can walk, or the reason why there are none
        cdef Tensor* tensor = &self.table.tensors[i]
        dtype = np.dtype(np.float64 if tensor.wide else np.float32)
        pair = []
        for role, array, write in (("data", data, write_data), ("grad", grad, write_grad)):
            name = f"{role} of {self.names[i]}"
            if not isinstance(array, np.ndarray) or array.dtype.newbyteorder("=") != dtype:
                got = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
                raise TypeError(f"{name} must be an array of {dtype}, got {got}")
            if array.size != tensor.size or array.shape != data.shape:
                expected = data.shape if array is grad else f"{tensor.size} elements, as at first"
                raise ValueError(f"{name} must have {'shape ' if array is grad else ''}{expected}, got {array.shape}")
            if write and not array.flags.writeable:
                raise ValueError(f"{name} must be writeable, got a read-only array")
            work = np.require(array, dtype, ["C", "A", "E"])
            if write and work is not array:
                self.copies.append((array, work))
            pair.append(work)
        return tuple(pair)

    cdef int done(self) except -1:
        try:
            for array, work in self.copies:
                array[...] = work
        finally:
            self.copies.clear()
            self.busy = False
        return 0

    cdef double total(self, int column) noexcept nogil:
        cdef double result = 0
        cdef Py_ssize_t k
        for k in range(self.pieces):
            result += self.table.partial[2 * k + column]
        return result


cdef inline Py_ssize_t piece_size(const Tensor* tensor, bint by_rows) noexcept:
    if by_rows and tensor.row > 0:
        return max(<Py_ssize_t>1, PIECE // tensor.row) * tensor.row
    return PIECE


cdef inline bint direct(object array, const Tensor* tensor, bint write) noexcept:
    # whether kernels can walk this array as it is
    if not cnp.PyArray_Check(array) or cnp.PyArray_SIZE(array) != tensor.size:
        return False
    if cnp.PyArray_TYPE(array) != <int>(cnp.NPY_DOUBLE if tensor.wide else cnp.NPY_FLOAT):
        return False
    return cnp.PyArray_ISCARRAY(array) if write else cnp.PyArray_ISCARRAY_RO(array)
