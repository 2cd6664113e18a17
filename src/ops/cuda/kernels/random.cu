// The numbers of the crate's `rng`, bit for bit: Philox4x32-10 [Salmon11], Box–Muller over polynomials made of fused
// multiply-adds. One thread draws one block of four numbers.

struct Words { unsigned int w[4]; };

__device__ inline Words philox(unsigned int c0, unsigned int c1, unsigned int c2, unsigned int c3, unsigned int k0, unsigned int k1) {
    for (int round = 0; round < 10; round++) {
        unsigned int high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        unsigned int high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words words = {{c0, c1, c2, c3}};
    return words;
}

__device__ inline float logarithm(float u) {
    unsigned int bits = __float_as_uint(u) - 0x3F3504F3u;
    float e = (float)((int)bits >> 23);
    float x = __uint_as_float((bits & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
    float z = x * x;
    float p = 7.0376836e-2f;
    p = fmaf(p, x, -1.151461e-1f);
    p = fmaf(p, x, 1.1676999e-1f);
    p = fmaf(p, x, -1.2420141e-1f);
    p = fmaf(p, x, 1.4249323e-1f);
    p = fmaf(p, x, -1.6668058e-1f);
    p = fmaf(p, x, 2.0000715e-1f);
    p = fmaf(p, x, -2.4999994e-1f);
    p = fmaf(p, x, 3.333333e-1f);
    float y = fmaf(p * x, z, e * -2.1219444e-4f);
    y = fmaf(z, -0.5f, y);
    return fmaf(e, 6.933594e-1f, x + y);
}

// Two standard normals.
__device__ inline void box_muller(unsigned int radius_bits, unsigned int angle_bits, float* out) {
    const float small = 1.0f / 16777216.0f;
    float u = ((float)(radius_bits >> 8) + 0.5f) * small;
    float square = -2.0f * logarithm(u);
    float r = sqrtf(square > 0.0f ? square : 0.0f);
    float x = ((float)((angle_bits & 0x3FFFFFFFu) >> 6) * small - 0.5f) * 1.57079637f;
    float z = x * x;
    float s = fmaf(fmaf(-1.9515296e-4f, z, 8.332161e-3f), z, -1.6666655e-1f);
    float sine = fmaf(s * z, x, x);
    float c = fmaf(fmaf(2.4433157e-5f, z, -1.3887316e-3f), z, 4.1666646e-2f);
    float cosine = fmaf(c * z, z, fmaf(z, -0.5f, 1.0f));
    float sign = angle_bits >> 31 ? -r : r;
    bool swap = (angle_bits >> 30) & 1u;
    out[0] = sign * (swap ? -sine : cosine);
    out[1] = sign * (swap ? cosine : sine);
}

// Each sample of `dims` numbers loses those whose uniform number lies below p; the others are multiplied with `scale`.
extern "C" __global__ void dropout(
    int samples, int dims, unsigned int k0, unsigned int k1, unsigned int step, unsigned int tag, unsigned int first,
    const unsigned int* step_at, float p, double scale, const store* x, store* y) {
    int blocks = (dims + 3) / 4, i = element();
    if (i >= samples * blocks) return;
    int sample = i / blocks, block = i % blocks;
    // A recorded launch is told the step where it lies.
    if (step_at) step = *step_at;
    Words words = philox((unsigned int)block, first + (unsigned int)sample, step, tag, k0, k1);
    for (int j = 0; j < 4 && 4 * block + j < dims; j++) {
        int place = sample * dims + 4 * block + j;
        float uniform = (float)(words.w[j] >> 8) * (1.0f / 16777216.0f);
        put(y + place, uniform < p ? (real)0 : widen(x[place]) * (real)scale);
    }
}
