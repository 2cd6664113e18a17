// Sums over the rows of [groups, rows, columns], `chunk` rows at a time: out [groups, chunks, columns].
// Blocks of 32 columns × 8 row lanes; grid (column tiles, chunks, groups).

template <typename T>
__device__ inline void sum_chunk(int rows, int columns, int chunk, const T* x, real* out) {
    __shared__ real shared[8][32];
    int column = (int)(blockIdx.x * 32 + threadIdx.x), lane = (int)threadIdx.y;
    int first = (int)blockIdx.y * chunk, end = first + chunk < rows ? first + chunk : rows;
    real sum = 0;
    if (column < columns)
        for (int row = first + lane; row < end; row += 8)
            sum += widen(x[((long long)blockIdx.z * rows + row) * columns + column]);
    shared[lane][threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0 && column < columns) {
        for (int other = 1; other < 8; other++) sum += shared[other][threadIdx.x];
        out[((long long)blockIdx.z * gridDim.y + blockIdx.y) * columns + column] = sum;
    }
}

extern "C" __global__ void sum_rows(int rows, int columns, int chunk, const store* x, real* out) {
    sum_chunk(rows, columns, chunk, x, out);
}

// The same of what an earlier pass left.
extern "C" __global__ void sum_partial_rows(int rows, int columns, int chunk, const real* x, real* out) {
    sum_chunk(rows, columns, chunk, x, out);
}
