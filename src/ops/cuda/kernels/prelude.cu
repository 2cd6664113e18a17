// What every kernel knows. Above this text the host defines, for one module,
//   store   the type of tensors in memory: float, double or bf16,
//   real    the type of the arithmetic: float, double or float.
//
// House rules: no atomics; every sum has one order, given by the sizes alone; nothing is fused but what says fma (modules
// are compiled with --fmad=false), so that the bits are those of the same formula on the processor.

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(bf16 x) { return __uint_as_float((unsigned int)x.bits << 16); }

__device__ inline void put(float* to, float x) { *to = x; }
__device__ inline void put(double* to, double x) { *to = x; }

// To the nearest bf16, ties to even; NaN stays NaN.
__device__ inline void put(bf16* to, float x) {
    unsigned int bits = __float_as_uint(x);
    unsigned int rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    to->bits = (unsigned short)(x != x ? 0x7FC0u : rounded);
}

__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }
__device__ inline float root(float x) { return sqrtf(x); }
__device__ inline double root(double x) { return sqrt(x); }

// a b + c, rounded once.
__device__ inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
__device__ inline double fused(double a, double b, double c) { return fma(a, b, c); }

// z sigmoid(z), and its derivative.
__device__ inline real silu_of(real z) { return z / ((real)1 + exponential(-z)); }
__device__ inline real silu_slope(real z) {
    real s = (real)1 / ((real)1 + exponential(-z));
    return s * ((real)1 + z * ((real)1 - s));
}

// The element of a kernel with one thread for each.
__device__ inline int element() { return (int)(blockIdx.x * blockDim.x + threadIdx.x); }

// The sum over the threads of a block, in halves; every thread gets it. `shared` has a place for each thread, and the
// block is a power of two. In a block of several rows of threads, each row has its own sum.
template <typename T>
__device__ inline T block_sum(T value, T* shared) {
    int thread = (int)threadIdx.x;
    shared += threadIdx.y * blockDim.x;
    shared[thread] = value;
    __syncthreads();
    for (int half = (int)blockDim.x / 2; half > 0; half /= 2) {
        if (thread < half) shared[thread] += shared[thread + half];
        __syncthreads();
    }
    T sum = shared[0];
    __syncthreads();
    return sum;
}

// The largest value over the threads of a block, or of each of its rows; a NaN wins.
__device__ inline real block_max(real value, real* shared) {
    int thread = (int)threadIdx.x;
    shared += threadIdx.y * blockDim.x;
    shared[thread] = value;
    __syncthreads();
    for (int half = (int)blockDim.x / 2; half > 0; half /= 2) {
        if (thread < half) {
            real other = shared[thread + half];
            if (other > shared[thread] || other != other) shared[thread] = other;
        }
        __syncthreads();
    }
    real most = shared[0];
    __syncthreads();
    return most;
}
