// Layer normalisation of the rows of x [rows, C]; moments [rows, 2] are mean and reciprocal deviation.

// One block to a row. y = γ (x − μ) r + β.
extern "C" __global__ void layer_norm(int channels, double eps, const store* x, const store* gamma, const store* beta, store* y, real* moments) {
    __shared__ real shared[256];
    long long at = (long long)blockIdx.x * channels;
    real sum = 0;
    for (int i = (int)threadIdx.x; i < channels; i += (int)blockDim.x) sum += widen(x[at + i]);
    real mean = block_sum(sum, shared) / (real)channels;
    sum = 0;
    for (int i = (int)threadIdx.x; i < channels; i += (int)blockDim.x) {
        real d = widen(x[at + i]) - mean;
        sum += d * d;
    }
    real rstd = (real)1 / root(block_sum(sum, shared) / (real)channels + (real)eps);
    if (threadIdx.x == 0) {
        moments[2 * blockIdx.x] = mean;
        moments[2 * blockIdx.x + 1] = rstd;
    }
    for (int i = (int)threadIdx.x; i < channels; i += (int)blockDim.x)
        put(y + at + i, widen(gamma[i]) * ((widen(x[at + i]) - mean) * rstd) + widen(beta[i]));
}

// dx = r (g − mean(g) − x̂ mean(g x̂)) with g = γ dy, the means over the row. One block to a row.
extern "C" __global__ void layer_norm_input(
    int channels, const store* x, const store* gamma, const real* moments, const store* dy, store* dx) {
    __shared__ real shared[256];
    long long at = (long long)blockIdx.x * channels;
    real mean = moments[2 * blockIdx.x], rstd = moments[2 * blockIdx.x + 1], sum = 0, sum_hat = 0;
    for (int i = (int)threadIdx.x; i < channels; i += (int)blockDim.x) {
        real g = widen(gamma[i]) * widen(dy[at + i]);
        sum += g;
        sum_hat += g * ((widen(x[at + i]) - mean) * rstd);
    }
    sum = block_sum(sum, shared) / (real)channels;
    sum_hat = block_sum(sum_hat, shared) / (real)channels;
    for (int i = (int)threadIdx.x; i < channels; i += (int)blockDim.x) {
        real x_hat = (widen(x[at + i]) - mean) * rstd;
        put(dx + at + i, rstd * (widen(gamma[i]) * widen(dy[at + i]) - sum - x_hat * sum_hat));
    }
}

// Σ dy x̂ and Σ dy over `chunk` rows at a time: out [2, chunks, C]. Blocks of 32 columns × 8 row lanes; grid (column tiles,
// chunks).
extern "C" __global__ void layer_norm_sums(
    int rows, int channels, int chunk, const store* x, const real* moments, const store* dy, real* out) {
    __shared__ real shared[2][8][32];
    int column = (int)(blockIdx.x * 32 + threadIdx.x), lane = (int)threadIdx.y;
    int first = (int)blockIdx.y * chunk, end = first + chunk < rows ? first + chunk : rows;
    real sum = 0, sum_hat = 0;
    if (column < channels)
        for (int row = first + lane; row < end; row += 8) {
            long long at = (long long)row * channels + column;
            real slope = widen(dy[at]);
            sum += slope;
            sum_hat += slope * ((widen(x[at]) - moments[2 * row]) * moments[2 * row + 1]);
        }
    shared[0][lane][threadIdx.x] = sum_hat;
    shared[1][lane][threadIdx.x] = sum;
    __syncthreads();
    if (lane < 2 && column < channels) {
        sum = shared[lane][0][threadIdx.x];
        for (int other = 1; other < 8; other++) sum += shared[lane][other][threadIdx.x];
        out[((long long)lane * gridDim.y + blockIdx.y) * channels + column] = sum;
    }
}
