// The step after the network: the gradient's norm, the update.

// A parameter's chunk: whose it is, where it begins in the parameter, how long it is, where it lies in the flat buffers.
struct Chunk { int parameter, first, length, place; };

// The gradient of each parameter has its own address.
__device__ inline const store* gradient_of(const Chunk& chunk, const unsigned long long* gradients) {
    return (const store*)gradients[chunk.parameter] + chunk.first;
}

// Sum of squares of each chunk, in f64. One block to a chunk.
extern "C" __global__ void gradient_squares(const Chunk* chunks, const unsigned long long* gradients, double* squares) {
    __shared__ double shared[256];
    Chunk chunk = chunks[blockIdx.x];
    const store* g = gradient_of(chunk, gradients);
    double sum = 0;
    for (int i = (int)threadIdx.x; i < chunk.length; i += (int)blockDim.x) sum += (double)widen(g[i]) * (double)widen(g[i]);
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

// state: the factor that clips the gradient, and whether a norm so far was not finite. One block.
extern "C" __global__ void gradient_norm(int chunks, double largest, const double* squares, double* norm_of_step, double* state) {
    __shared__ double shared[256];
    double sum = 0;
    for (int i = (int)threadIdx.x; i < chunks; i += (int)blockDim.x) sum += squares[i];
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) {
        double norm = sqrt(sum);
        norm_of_step[0] = norm;
        state[0] = largest > 0.0 && norm > largest ? largest / norm : 1.0;
        if (!(norm - norm == 0.0)) state[1] = 1.0;
    }
}

// AdamW and the moving average, as `optim` does it; nothing once a norm was not finite: the host hears of it later.
// `constants` are those of `optim`. `working` are the addresses of the weights that the network reads, in its own type. One block to a chunk.
extern "C" __global__ void adamw(
    const float* constants, const double* state, const Chunk* chunks, const unsigned long long* gradients, const unsigned long long* working,
    float* raw, float* ema, float* first_moment, float* second_moment) {
    if (state[1] != 0.0) return;
    float beta1 = constants[0], beta2 = constants[1], rate = constants[2], scale = constants[3], epsilon = constants[4];
    float keep = constants[5], decay = constants[6];
    float clip = (float)state[0];
    Chunk chunk = chunks[blockIdx.x];
    const store* gradient = gradient_of(chunk, gradients);
    store* to = (store*)working[chunk.parameter] + chunk.first;
    for (int i = (int)threadIdx.x; i < chunk.length; i += (int)blockDim.x) {
        int at = chunk.place + i;
        float g = (float)widen(gradient[i]) * clip;
        float m = beta1 * first_moment[at] + (1.0f - beta1) * g;
        float v = beta2 * second_moment[at] + (1.0f - beta2) * g * g;
        float w = keep * raw[at] - rate * m / (sqrtf(v * scale) + epsilon);
        first_moment[at] = m;
        second_moment[at] = v;
        raw[at] = w;
        ema[at] = decay * ema[at] + (1.0f - decay) * w;
        put(to + i, (real)w);
    }
}
