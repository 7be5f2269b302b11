# What SGD and the gradient accumulator walk over: all arrays of all parameters as one list of pieces, so that a step
# is one kernel call however many tensors there are.

cdef enum:
    PIECE = 16384  # elements; a piece's arrays (data, gradient, state) stay in the second-level cache
    STATES = 3     # state arrays that a parameter can have

cdef struct Tensor:
    void* data           # (size,) of the parameter, or of a contiguous copy of it
    void* grad           # (size,) likewise
    void* state[STATES]  # (size,) as bound by the owner; NULL where there is none
    Py_ssize_t size
    Py_ssize_t row       # elements in one row (index 0 fixed); 0 for fewer than two dimensions
    int group            # which parameter group
    bint wide            # float64, else float32
    bint decay

cdef struct Piece:
    Py_ssize_t tensor
    Py_ssize_t start
    Py_ssize_t stop

# Blocks are what threads claim: block b holds the pieces first[b] … first[b+1]−1.
cdef struct Pieces:
    Tensor* tensors
    Piece* pieces
    Py_ssize_t* first
    double* partial      # (pieces, 2) sums over each piece, merged in the order of pieces

# What parallel_for is told of a call that moves so many bytes. One core moves 60 GB/s of what its cache holds, and a
# piece that another thread had in its cache last time has to be fetched from there: a second thread pays from about
# half a MB on, five times as much as in heavier loops (measured).
cdef inline double stream_work(double nbytes) noexcept nogil:
    return nbytes / 5


cdef class TensorTable:
    cdef Pieces table
    cdef Py_ssize_t tensors
    cdef Py_ssize_t pieces
    cdef Py_ssize_t blocks
    cdef double nbytes   # of the parameters
    cdef bint wide       # whether any tensor is float64
    cdef readonly int groups
    cdef list parameters
    cdef list names
    cdef bint by_rows
    cdef bint busy       # whether a call is at work on it
    cdef list held       # the arrays that the pointers lead into
    cdef list bound      # likewise, of the states: what `states` was when the pointers were set
    cdef list copies     # (array, contiguous copy) pairs to write back
    cdef list states     # as bound, a list for each slot or None; never changed, but replaced

    # What a call works on: this table, or a twin while another thread's call is at work on it. Reads every parameter's
    # arrays anew, since users may replace them between calls; raises before anything changes.
    cdef TensorTable ready(self, bint write_data, bint write_grad)
    cdef int refresh(self, bint write_data, bint write_grad) except -1
    cdef list forms(self)
    cdef tuple usable(self, Py_ssize_t i, object data, object grad, bint write_data, bint write_grad)
    # Ends the call: copies results into the arrays that kernels could not write directly.
    cdef int done(self) except -1
    # Sum of the partial sums of column 0 or 1 in the order of pieces.
    cdef double total(self, int column) noexcept nogil
