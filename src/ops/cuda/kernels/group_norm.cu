// Group normalisation of x [B, pixels, C]; moments [B, groups, 2] are mean and reciprocal deviation.

// How the threads of a block share the pixels of a group: `across` of them stand side by side over its channels, each row of
// threads takes every `down`-th pixel. Threads that are left over take none.
struct Share { int channel, across, pixel, down; };

__device__ inline Share share_of(int width, int pixels) {
    Share share;
    share.across = width < (int)blockDim.x ? width : (int)blockDim.x;
    share.down = (int)blockDim.x / share.across;
    share.channel = (int)threadIdx.x % share.across;
    share.pixel = (int)threadIdx.x / share.across;
    if (share.pixel >= share.down) share.pixel = pixels;
    return share;
}

// One block to a group of a sample. z = γ (x − μ) r + β; y = z, or silu(z).
extern "C" __global__ void group_norm(
    int pixels, int channels, int groups, double eps, int with_silu,
    const store* x, const store* gamma, const store* beta, store* y, real* moments) {
    __shared__ real shared[256];
    int width = channels / groups, group = (int)blockIdx.x % groups, sample = (int)blockIdx.x / groups;
    int count = pixels * width;
    long long at = (long long)sample * pixels * channels + group * width;
    Share share = share_of(width, pixels);
    real sum = 0;
    for (int pixel = share.pixel; pixel < pixels; pixel += share.down)
        for (int c = share.channel; c < width; c += share.across) sum += widen(x[at + (long long)pixel * channels + c]);
    real mean = block_sum(sum, shared) / (real)count;
    sum = 0;
    for (int pixel = share.pixel; pixel < pixels; pixel += share.down)
        for (int c = share.channel; c < width; c += share.across) {
            real d = widen(x[at + (long long)pixel * channels + c]) - mean;
            sum += d * d;
        }
    real rstd = (real)1 / root(block_sum(sum, shared) / (real)count + (real)eps);
    if (threadIdx.x == 0) {
        moments[2 * blockIdx.x] = mean;
        moments[2 * blockIdx.x + 1] = rstd;
    }
    for (int c = share.channel; c < width; c += share.across) {
        real g = widen(gamma[group * width + c]), b = widen(beta[group * width + c]);
        for (int pixel = share.pixel; pixel < pixels; pixel += share.down) {
            long long place = at + (long long)pixel * channels + c;
            real z = g * ((widen(x[place]) - mean) * rstd) + b;
            put(y + place, with_silu ? silu_of(z) : z);
        }
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
        real g = widen(gamma[channel]), b = widen(beta[channel]);
        for (int pixel = lane; pixel < pixels; pixel += 32) {
            long long place = ((long long)sample * pixels + pixel) * channels + channel;
            real x_hat = (widen(x[place]) - m[0]) * m[1];
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

// dx = r (γ dz − mean(γ dz) − x̂ mean(γ dz x̂)), the means over the group. One block to a group of a sample.
extern "C" __global__ void group_norm_input(
    int pixels, int channels, int groups, int with_silu,
    const store* x, const store* gamma, const store* beta, const real* moments, const real* sums, const store* dy, store* dx) {
    int width = channels / groups, group = (int)blockIdx.x % groups, sample = (int)blockIdx.x / groups;
    int batch = (int)gridDim.x / groups, count = pixels * width;
    real mean = moments[2 * blockIdx.x], rstd = moments[2 * blockIdx.x + 1];
    real slope = 0, slope_hat = 0;
    for (int channel = group * width; channel < (group + 1) * width; channel++) {
        slope += widen(gamma[channel]) * sums[(long long)sample * channels + channel];
        slope_hat += widen(gamma[channel]) * sums[((long long)batch + sample) * channels + channel];
    }
    slope /= (real)count;
    slope_hat /= (real)count;
    long long at = (long long)sample * pixels * channels + group * width;
    Share share = share_of(width, pixels);
    for (int c = share.channel; c < width; c += share.across) {
        real g = widen(gamma[group * width + c]), b = widen(beta[group * width + c]);
        for (int pixel = share.pixel; pixel < pixels; pixel += share.down) {
            long long place = at + (long long)pixel * channels + c;
            real x_hat = (widen(x[place]) - mean) * rstd;
            real dz = gradient_of_z(x_hat, g, b, widen(dy[place]), with_silu);
            put(dx + place, rstd * (g * dz - slope - x_hat * slope_hat));
        }
    }
}
