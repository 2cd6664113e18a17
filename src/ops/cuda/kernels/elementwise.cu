// One thread for each element of the result.

extern "C" __global__ void silu(int n, const store* x, store* y) {
    int i = element();
    if (i < n) put(y + i, silu_of(widen(x[i])));
}

extern "C" __global__ void silu_backward(int n, const store* x, const store* dy, store* dx) {
    int i = element();
    if (i < n) put(dx + i, widen(dy[i]) * silu_slope(widen(x[i])));
}

// y = x + bias, one bias of `channels` numbers for every `span` elements. y may be x.
extern "C" __global__ void add_bias(int n, int channels, int span, const store* x, const store* bias, store* y) {
    int i = element();
    if (i < n) put(y + i, widen(x[i]) + widen(bias[i / span * channels + i % channels]));
}

// z = z + bias, y = silu(z).
extern "C" __global__ void add_bias_silu(int n, int channels, const store* bias, store* z, store* y) {
    int i = element();
    if (i >= n) return;
    real sum = widen(z[i]) + widen(bias[i % channels]);
    put(z + i, sum);
    put(y + i, silu_of(sum));
}

// Every pixel of x [B, h, w, c] in a 2 x 2 block; n is that of y.
extern "C" __global__ void upsample2x(int n, int w, int c, const store* x, store* y) {
    int i = element();
    if (i >= n) return;
    int channel = i % c, pixel = i / c;
    int column = pixel % (2 * w), line = pixel / (2 * w);
    y[i] = x[(line / 2 * w + column / 2) * c + channel];
}

// Each pixel of dx is the sum of its four of dy; n is that of dx.
extern "C" __global__ void upsample2x_backward(int n, int w, int c, const store* dy, store* dx) {
    int i = element();
    if (i >= n) return;
    int channel = i % c, pixel = i / c;
    int column = pixel % w, line = pixel / w;
    const store* upper = dy + (line * 2 * 2 * w + column * 2) * c + channel;
    const store* lower = upper + 2 * w * c;
    put(dx + i, (widen(upper[0]) + widen(upper[c])) + (widen(lower[0]) + widen(lower[c])));
}

// Rows of a and b side by side.
extern "C" __global__ void concat(int n, int c_a, int c_b, const store* a, const store* b, store* y) {
    int i = element();
    if (i >= n) return;
    int row = i / (c_a + c_b), column = i % (c_a + c_b);
    y[i] = column < c_a ? a[row * c_a + column] : b[row * c_b + column - c_a];
}

// Columns first .. first + width of rows of `total` columns.
extern "C" __global__ void columns(int n, int total, int first, int width, const store* x, store* y) {
    int i = element();
    if (i < n) y[i] = x[i / width * total + first + i % width];
}

// softmax(scale · row) of each row, a row of threads to each.
extern "C" __global__ void softmax(int rows, int columns, double scale, const store* x, store* y) {
    __shared__ real shared[256];
    int which = (int)(blockIdx.x * blockDim.y + threadIdx.y);
    // Rows of threads without a row go along, to the barriers: they look at the last one and write nothing.
    bool idle = which >= rows;
    long long first = (long long)(idle ? rows - 1 : which) * columns;
    const store* row = x + first;
    store* out = y + first;
    real most = (real)scale * widen(row[0]);
    for (int i = (int)threadIdx.x; i < columns; i += (int)blockDim.x) {
        real value = (real)scale * widen(row[i]);
        if (value > most || value != value) most = value;
    }
    most = block_max(most, shared);
    real sum = 0;
    for (int i = (int)threadIdx.x; i < columns; i += (int)blockDim.x) sum += exponential((real)scale * widen(row[i]) - most);
    real inverse = (real)1 / block_sum(sum, shared);
    if (idle) return;
    for (int i = (int)threadIdx.x; i < columns; i += (int)blockDim.x)
        put(out + i, exponential((real)scale * widen(row[i]) - most) * inverse);
}

// dx = scale · y (dy − Σ y dy), row by row.
extern "C" __global__ void softmax_backward(int rows, int columns, double scale, const store* y, const store* dy, store* dx) {
    __shared__ real shared[256];
    int which = (int)(blockIdx.x * blockDim.y + threadIdx.y);
    bool idle = which >= rows;
    long long first = (long long)(idle ? rows - 1 : which) * columns;
    real sum = 0;
    for (int i = (int)threadIdx.x; i < columns; i += (int)blockDim.x) sum += widen(y[first + i]) * widen(dy[first + i]);
    sum = block_sum(sum, shared);
    if (idle) return;
    for (int i = (int)threadIdx.x; i < columns; i += (int)blockDim.x)
        put(dx + first + i, (real)scale * (widen(y[first + i]) * (widen(dy[first + i]) - sum)));
}
