// A batch of the Gaussian process: examples from memory, their noise, and what the loss makes of the network's output.

// Of one sample: its row in the data, whether it is mirrored, its timestep's row in the tables, and where in the random
// numbers its noise lies.
struct Sample { int example, mirrored, t; unsigned int sample, k0, k1, step, tag; };

__device__ inline float stored(const unsigned char* data, const float* scaled, long long at) { return scaled[data[at]]; }
__device__ inline float stored(const float* data, const float*, long long at) { return data[at]; }

// One thread for four numbers: x_0 from the data, its noise, x_t = a x_0 + b noise with the pair (a, b) of its timestep.
template <typename T>
__device__ inline void draw(
    int samples, int dims, int width, int channels, const Sample* which, const float* pairs, const T* data, const float* scaled,
    float* x_0, float* noise, float* x_t) {
    int blocks = (dims + 3) / 4, i = element();
    if (i >= samples * blocks) return;
    int block = i % blocks;
    Sample s = which[i / blocks];
    Words words = philox((unsigned int)block, s.sample, s.step, s.tag, s.k0, s.k1);
    float drawn[4];
    box_muller(words.w[0], words.w[1], drawn);
    box_muller(words.w[2], words.w[3], drawn + 2);
    float a = pairs[2 * s.t], b = pairs[2 * s.t + 1];
    for (int j = 0; j < 4 && 4 * block + j < dims; j++) {
        int k = 4 * block + j, from = k;
        if (s.mirrored) {
            int pixel = k / channels, column = pixel % width;
            from = (pixel - column + width - 1 - column) * channels + k % channels;
        }
        float x = stored(data, scaled, (long long)s.example * dims + from);
        long long place = (long long)(i / blocks) * dims + k;
        x_0[place] = x;
        noise[place] = drawn[j];
        x_t[place] = a * x + b * drawn[j];
    }
}

extern "C" __global__ void draw_levels(
    int samples, int dims, int width, int channels, const Sample* which, const float* pairs, const unsigned char* data,
    const float* scaled, float* x_0, float* noise, float* x_t) {
    draw(samples, dims, width, channels, which, pairs, data, scaled, x_0, noise, x_t);
}

extern "C" __global__ void draw_reals(
    int samples, int dims, int width, int channels, const Sample* which, const float* pairs, const float* data,
    const float* scaled, float* x_0, float* noise, float* x_t) {
    draw(samples, dims, width, channels, which, pairs, data, scaled, x_0, noise, x_t);
}

// A timestep's row of the tables; `diffusion::Coefficients` says what each is.
struct Row {
    double x0_of_xt, x0_of_out, eps_of_xt, eps_of_out, target_of_eps, target_of_x0;
    double log_variance, log_variance_of_out, x0_coef, posterior_log_variance;
    double simple, mean_bound, variance_bound;
};

// A term of the bound in nats, and its slopes in the mean (at t = 1) or x_0 (above) and in the log-variance.
struct Term { double nats, mean, log_variance; };

// The decoder's distribution function and its derivative.
__device__ inline double distribution(double z, int with_erf, double* density) {
    const double sqrt_half = 0.70710678118654752440, two_over_pi = 0.63661977236758134308;
    if (with_erf) {
        *density = 0.5 * sqrt(two_over_pi) * exp(-0.5 * z * z);
        return 0.5 * erfc(-z * sqrt_half);
    }
    double c = sqrt(two_over_pi), inner = c * (z + 0.044715 * z * z * z);
    double value = 1.0 / (1.0 + exp(-2.0 * inner)), e = exp(-2.0 * (inner < 0.0 ? -inner : inner));
    double slope = 2.0 * e / ((1.0 + e) * (1.0 + e)) * c * (1.0 + 3.0 * 0.044715 * z * z);
    *density = slope - slope == 0.0 ? slope : 0.0;
    return value;
}

// -log p(x | mean, log-variance): as `diffusion::decoder` does it. No levels: the density.
__device__ inline Term decode(double x, double mean, double log_variance, int levels, int with_erf) {
    const double log_two_pi = 1.83787706640934548356, least = 1e-12;
    double inverse = exp(-0.5 * log_variance), ignored;
    if (levels == 0) {
        double z = (x - mean) * inverse;
        Term term = {0.5 * (log_two_pi + log_variance + z * z), -z * inverse, 0.5 * (1.0 - z * z)};
        return term;
    }
    double half_bin = 1.0 / (double)(levels - 1);
    double upper = (x - mean + half_bin) * inverse, lower = (x - mean - half_bin) * inverse;
    bool lowest = x < -1.0 + half_bin, highest = x > 1.0 - half_bin;
    double below_upper = 1.0, density_upper = 0.0, below_lower = 0.0, density_lower = 0.0;
    if (!highest) below_upper = distribution(upper, with_erf, &density_upper);
    if (!lowest) below_lower = distribution(lower, with_erf, &density_lower);
    double probability = below_upper - below_lower;
    if (lowest) probability = below_upper;
    else if (highest) probability = distribution(-lower, with_erf, &ignored);
    else if (lower > 0.0) probability = distribution(-lower, with_erf, &ignored) - distribution(-upper, with_erf, &ignored);
    if (probability < least) {
        Term term = {-log(least), 0.0, 0.0};
        return term;
    }
    Term term = {
        -log(probability), (density_upper - density_lower) * inverse / probability,
        0.5 * (density_upper * upper - density_lower * lower) / probability};
    return term;
}

// KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)) of one element.
__device__ inline Term divergence(const Row& row, double x_0, double predicted, double log_variance) {
    double difference = row.x0_coef * (predicted - x_0), precision = exp(-log_variance);
    double ratio = exp(row.posterior_log_variance - log_variance), scaled = difference * difference * precision;
    Term term = {
        0.5 * (log_variance - row.posterior_log_variance - 1.0 + ratio + scaled), row.x0_coef * difference * precision,
        0.5 * (1.0 - ratio - scaled)};
    return term;
}

// The terms of each sample (eps-MSE, x_0-MSE, bound in bits/dim, loss) and, where wanted, `scales` times the slope of its
// loss in the output: as `diffusion::gaussian` does it, in f64. One block to a sample. Where the variance is learned, the
// output has twice the channels: the prediction's, then the variance's.
extern "C" __global__ void gaussian_loss(
    int dims, int channels, int learned, int levels, int with_erf, int clip, int with_slope,
    const Sample* which, const double* scales, const Row* rows,
    const float* x_0, const float* x_t, const float* noise, const float* output, double* terms, float* slope) {
    __shared__ double shared[256];
    int sample = (int)blockIdx.x, first = which[sample].t == 0;
    Row row = rows[which[sample].t];
    double scale = with_slope ? scales[sample] / (double)dims : 0.0;
    long long at = (long long)sample * dims;
    double mse = 0, x0_mse = 0, nats = 0, squared = 0;
    for (int j = (int)threadIdx.x; j < dims; j += (int)blockDim.x) {
        long long place = learned ? 2 * at + j / channels * 2 * channels + j % channels : at + j;
        double x0 = (double)x_0[at + j], xt = (double)x_t[at + j], eps = (double)noise[at + j], out = (double)output[place];
        double predicted = row.x0_of_xt * xt + row.x0_of_out * out, log_variance = row.log_variance;
        if (learned) log_variance += row.log_variance_of_out * (double)output[place + channels];
        if (clip) predicted = predicted < -1.0 ? -1.0 : predicted > 1.0 ? 1.0 : predicted;
        Term term = first ? decode(x0, predicted, log_variance, levels, with_erf) : divergence(row, x0, predicted, log_variance);
        double off_eps = eps - (row.eps_of_xt * xt + row.eps_of_out * out), off_x0 = x0 - predicted;
        double off = out - (row.target_of_eps * eps + row.target_of_x0 * x0);
        mse += off_eps * off_eps;
        x0_mse += off_x0 * off_x0;
        nats += term.nats;
        squared += off * off;
        if (with_slope) {
            slope[place] = (float)(scale * (row.simple * 2.0 * off + row.mean_bound * term.mean * row.x0_of_out));
            if (learned) slope[place + channels] = (float)(scale * (row.variance_bound * term.log_variance * row.log_variance_of_out));
        }
    }
    mse = block_sum(mse, shared);
    x0_mse = block_sum(x0_mse, shared);
    nats = block_sum(nats, shared);
    squared = block_sum(squared, shared);
    if (threadIdx.x == 0) {
        const double ln_2 = 0.69314718055994530942;
        double* to = terms + 4 * sample;
        to[0] = mse / (double)dims;
        to[1] = x0_mse / (double)dims;
        to[2] = nats / ((double)dims * ln_2);
        to[3] = row.simple * squared / (double)dims + row.variance_bound * nats / (double)dims;
    }
}
