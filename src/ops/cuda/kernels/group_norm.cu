// Group normalisation of x [B, pixels, C]; moments [B, groups, 2] are mean and reciprocal deviation.
//
// What touches x goes through it in tiles, grid (pixel tiles, channel tiles, B): neighbouring threads have neighbouring
// channels, and each thread has PIXELS numbers of one channel, blockDim.y pixels apart.

#define PIXELS 8

// A thread's place: its channel and its first pixel. A thread beyond the channels has no pixel either.
struct Tile { int channel, pixel, end, step; long long at; };

__device__ inline Tile tile_of(int pixels, int channels) {
    Tile tile;
    tile.channel = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    tile.step = (int)blockDim.y;
    tile.pixel = (int)blockIdx.x * PIXELS * tile.step + (int)threadIdx.y;
    tile.end = tile.channel < channels ? pixels : 0;
    tile.at = (long long)blockIdx.z * pixels * channels + tile.channel;
    return tile;
}

// Of some numbers: how many, their mean, and the sum of their squared distances from it.
struct Part { real count, mean, squares; };

// [Chan83]
__device__ inline Part joined(Part a, Part b) {
    if (b.count == (real)0) return a;
    if (a.count == (real)0) return b;
    real count = a.count + b.count;
    real off = b.mean - a.mean, share = b.count / count;
    Part both = {count, a.mean + off * share, a.squares + b.squares + off * off * a.count * share};
    return both;
}

// parts [B, pixel tiles, C, 2]: mean and squared distances of each channel in each tile.
extern "C" __global__ void group_norm_parts(int pixels, int channels, const store* x, real* parts) {
    __shared__ Part shared[256];
    Tile tile = tile_of(pixels, channels);
    real values[PIXELS], sum = 0, squares = 0;
    int count = 0;
#pragma unroll
    for (int k = 0; k < PIXELS; k++) {
        int pixel = tile.pixel + k * tile.step;
        bool inside = pixel < tile.end;
        values[k] = inside ? widen(x[tile.at + (long long)pixel * channels]) : (real)0;
        sum += values[k];
        count += inside;
    }
    real mean = count ? sum / (real)count : (real)0;
#pragma unroll
    for (int k = 0; k < PIXELS; k++)
        if (k < count) squares += (values[k] - mean) * (values[k] - mean);
    Part part = {(real)count, mean, squares};
    int thread = (int)(threadIdx.y * blockDim.x + threadIdx.x);
    shared[thread] = part;
    __syncthreads();
    for (int half = (int)blockDim.y / 2; half > 0; half /= 2) {
        if ((int)threadIdx.y < half) shared[thread] = joined(shared[thread], shared[thread + half * (int)blockDim.x]);
        __syncthreads();
    }
    if (threadIdx.y == 0 && tile.channel < channels) {
        long long to = 2 * (((long long)blockIdx.z * gridDim.x + blockIdx.x) * channels + tile.channel);
        parts[to] = shared[thread].mean;
        parts[to + 1] = shared[thread].squares;
    }
}

// The moments of each group from the parts of its channels, `tile` pixels in each but the last. One block to a group.
extern "C" __global__ void group_norm_moments(
    int pixels, int channels, int groups, int tiles, int tile, double eps, const real* parts, real* moments) {
    __shared__ Part shared[256];
    int width = channels / groups, group = (int)blockIdx.x % groups, sample = (int)blockIdx.x / groups;
    Part part = {0, 0, 0};
    for (int i = (int)threadIdx.x; i < tiles * width; i += (int)blockDim.x) {
        int which = i / width, left = pixels - which * tile;
        long long from = 2 * (((long long)sample * tiles + which) * channels + group * width + i % width);
        Part other = {(real)(left < tile ? left : tile), parts[from], parts[from + 1]};
        part = joined(part, other);
    }
    shared[threadIdx.x] = part;
    __syncthreads();
    for (int half = (int)blockDim.x / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) shared[threadIdx.x] = joined(shared[threadIdx.x], shared[threadIdx.x + half]);
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        moments[2 * blockIdx.x] = shared[0].mean;
        moments[2 * blockIdx.x + 1] = (real)1 / root(shared[0].squares / shared[0].count + (real)eps);
    }
}

// z = γ (x − μ) r + β; y = z, or silu(z).
extern "C" __global__ void group_norm(
    int pixels, int channels, int groups, int with_silu,
    const store* x, const store* gamma, const store* beta, const real* moments, store* y) {
    Tile tile = tile_of(pixels, channels);
    if (tile.pixel >= tile.end) return;
    const real* m = moments + 2 * ((int)blockIdx.z * groups + tile.channel / (channels / groups));
    real g = widen(gamma[tile.channel]), b = widen(beta[tile.channel]), mean = m[0], rstd = m[1];
#pragma unroll
    for (int k = 0; k < PIXELS; k++) {
        int pixel = tile.pixel + k * tile.step;
        if (pixel >= tile.end) break;
        long long place = tile.at + (long long)pixel * channels;
        real z = g * ((widen(x[place]) - mean) * rstd) + b;
        put(y + place, with_silu ? silu_of(z) : z);
    }
}

// The gradient before the activation.
__device__ inline real gradient_of_z(real x_hat, real gamma, real beta, real dy, int with_silu) {
    return with_silu ? dy * silu_slope(gamma * x_hat + beta) : dy;
}

// sums [2, B, C]: Σ dz, and Σ dz x̂, over the pixels. Blocks of 32 channels × 32 pixel lanes; grid (B, channel tiles).
extern "C" __global__ void group_norm_sums(
    int pixels, int channels, int groups, int with_silu,
    const store* x, const store* gamma, const store* beta, const real* moments, const store* dy, real* sums) {
    __shared__ real shared[2][32][32];
    int channel = (int)(blockIdx.y * 32 + threadIdx.x), lane = (int)threadIdx.y, sample = (int)blockIdx.x;
    real sum = 0, sum_hat = 0;
    if (channel < channels) {
        const real* m = moments + 2 * (sample * groups + channel / (channels / groups));
        real g = widen(gamma[channel]), b = widen(beta[channel]), mean = m[0], rstd = m[1];
#pragma unroll 4
        for (int pixel = lane; pixel < pixels; pixel += 32) {
            long long place = ((long long)sample * pixels + pixel) * channels + channel;
            real x_hat = (widen(x[place]) - mean) * rstd;
            real dz = gradient_of_z(x_hat, g, b, widen(dy[place]), with_silu);
            sum += dz;
            sum_hat += dz * x_hat;
        }
    }
    shared[0][lane][threadIdx.x] = sum;
    shared[1][lane][threadIdx.x] = sum_hat;
    __syncthreads();
    if (lane < 2 && channel < channels) {
        sum = shared[lane][0][threadIdx.x];
        for (int other = 1; other < 32; other++) sum += shared[lane][other][threadIdx.x];
        sums[((long long)lane * gridDim.x + sample) * channels + channel] = sum;
    }
}

// slopes [B, groups, 2]: the means of γ dz and of γ dz x̂ over the group. One block to a group.
extern "C" __global__ void group_norm_slopes(int pixels, int channels, int groups, const store* gamma, const real* sums, real* slopes) {
    __shared__ real shared[256];
    int width = channels / groups, group = (int)blockIdx.x % groups, sample = (int)blockIdx.x / groups;
    int batch = (int)gridDim.x / groups;
    real slope = 0, slope_hat = 0;
    for (int c = (int)threadIdx.x; c < width; c += (int)blockDim.x) {
        int channel = group * width + c;
        slope += widen(gamma[channel]) * sums[(long long)sample * channels + channel];
        slope_hat += widen(gamma[channel]) * sums[((long long)batch + sample) * channels + channel];
    }
    real count = (real)pixels * (real)width;
    slope = block_sum(slope, shared) / count;
    slope_hat = block_sum(slope_hat, shared) / count;
    if (threadIdx.x == 0) {
        slopes[2 * blockIdx.x] = slope;
        slopes[2 * blockIdx.x + 1] = slope_hat;
    }
}

// dx = r (γ dz − mean(γ dz) − x̂ mean(γ dz x̂)), the means over the group.
extern "C" __global__ void group_norm_input(
    int pixels, int channels, int groups, int with_silu,
    const store* x, const store* gamma, const store* beta, const real* moments, const real* slopes, const store* dy, store* dx) {
    Tile tile = tile_of(pixels, channels);
    if (tile.pixel >= tile.end) return;
    int group = 2 * ((int)blockIdx.z * groups + tile.channel / (channels / groups));
    real g = widen(gamma[tile.channel]), b = widen(beta[tile.channel]);
    real mean = moments[group], rstd = moments[group + 1], slope = slopes[group], slope_hat = slopes[group + 1];
#pragma unroll
    for (int k = 0; k < PIXELS; k++) {
        int pixel = tile.pixel + k * tile.step;
        if (pixel >= tile.end) break;
        long long place = tile.at + (long long)pixel * channels;
        real x_hat = (widen(x[place]) - mean) * rstd;
        real dz = gradient_of_z(x_hat, g, b, widen(dy[place]), with_silu);
        put(dx + place, rstd * (g * dz - slope - x_hat * slope_hat));
    }
}
