// 3 x 3 convolutions of stride 1 with a row of zeros all round, in the arithmetic of the processor's own units: for types
// that no tensor core multiplies exactly. Images are [B, h, w, channels]; weights [outs, 3, 3, ins].
//
// An image is cut into tiles of 8 x 8 pixels. What a tile needs, its surroundings with it, goes to shared memory a few
// channels at a time, the next while the last are multiplied; a thread keeps a block of results in registers.

#define SIDE 8
#define AROUND (SIDE + 2)

// Four neighbouring numbers, moved as one.
struct alignas(4 * sizeof(store)) Stored4 { store at[4]; };
struct alignas(4 * sizeof(real)) Real4 { real at[4]; };

// What is computed on and what arrives meanwhile; doubles have room for one.
#define BUFFERS (sizeof(real) == 4 ? 2 : 1)

template <typename T>
__device__ inline void copy(Real4* to, const T* from, bool there) {
    Real4 four;
#pragma unroll
    for (int k = 0; k < 4; k++) four.at[k] = there ? widen(from[k]) : (real)0;
    *to = four;
}

// Copies that may arrive later: `sent` ends a batch, and `all_arrived_but_last` waits for the batches before the last, or,
// where one buffer is all there is, for that too. bf16 is widened on the way, which no such copy does.
#if defined(EMULATED)
__device__ inline void send(Real4* to, const real* from, bool there) { emulator::send(to, from, sizeof(Real4), there); }
__device__ inline void send(Real4* to, const bf16* from, bool there) { copy(to, from, there); }
__device__ inline void sent() { emulator::sent(); }
__device__ inline void all_arrived_but_last() { emulator::arrive(BUFFERS - 1); }
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
__device__ inline void send(Real4* to, const real* from, bool there) {
    unsigned int place = (unsigned int)__cvta_generic_to_shared(to);
    int bytes = there ? 16 : 0;
#pragma unroll
    for (int part = 0; part < (int)sizeof(Real4); part += 16)
        asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(place + part), "l"((const char*)from + part), "r"(bytes));
}
__device__ inline void send(Real4* to, const bf16* from, bool there) { copy(to, from, there); }
__device__ inline void sent() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ inline void all_arrived_but_last() {
    if (BUFFERS > 1) asm volatile("cp.async.wait_group 1;" ::: "memory");
    else asm volatile("cp.async.wait_group 0;" ::: "memory");
}
#else
template <typename T>
__device__ inline void send(Real4* to, const T* from, bool there) { copy(to, from, there); }
__device__ inline void sent() {}
__device__ inline void all_arrived_but_last() {}
#endif

// Where a tile lies.
struct Place { int image, row, column; };

__device__ inline Place place_of(int tile, int height, int width) {
    int across = (width + SIDE - 1) / SIDE, down = (height + SIDE - 1) / SIDE;
    Place place = {tile / across / down, tile / across % down * SIDE, tile % across * SIDE};
    return place;
}

// Images [images, height, width, channels]; `vectors`: every pixel begins on a whole vector.
struct Images { const store* x; int images, height, width, channels, vectors; };

// Sends the channels first .. first + 4 of a pixel, zeros beyond the last one and outside the image.
__device__ inline void send_pixel(Real4* to, const Images& from, int image, int row, int column, int first) {
    bool inside = image < from.images && row >= 0 && row < from.height && column >= 0 && column < from.width;
    bool there = inside && first < from.channels;
    const store* pixel = from.x;
    if (there) pixel += (((long long)image * from.height + row) * from.width + column) * from.channels + first;
    if (from.vectors) {
        send(to, pixel, there);
        return;
    }
    Real4 four;
#pragma unroll
    for (int k = 0; k < 4; k++) four.at[k] = there && first + k < from.channels ? widen(pixel[k]) : (real)0;
    *to = four;
}

// ---- the result, and the gradient of the image -----------------------------------------------------------------------------
//
// Each warp has a tile and 32 channels of the result: a thread 8 pixels of a row, and 8 channels. The warps of a block share
// the weights. Grid (blocks of tiles, channels of the result / 32).

#define WARPS 4
#define OUTS 32
#define INS 8
// Of one channel of x, or of one row of pixels: four numbers more than there are keep what is read at once in different banks.
#define PLANE (9 * OUTS + 4)
#define LINE (AROUND * INS + 4)

// The weights as `convolve` reads them: [outs / 32, ins / 8, 8, PLANE], zeros where there are none; n is the number of all.
// `flipped`: for the gradient of the image, the weights being [ins, 3, 3, outs], the taps in reverse.
extern "C" __global__ void conv3x3_pack(int n, int flipped, int ins, int outs, const store* w, real* packed) {
    int i = element();
    if (i >= n) return;
    int place = i % PLANE, rest = i / PLANE, chunks = (ins + INS - 1) / INS;
    int in = rest % (INS * chunks), out = rest / (INS * chunks) * OUTS + place % OUTS, tap = place / OUTS;
    real value = 0;
    if (tap < 9 && in < ins && out < outs)
        value = widen(flipped ? w[((long long)in * 9 + 8 - tap) * outs + out] : w[((long long)out * 9 + tap) * ins + in]);
    packed[i] = value;
}

// y = x * w + bias; bias [outs] with a step of 0 from image to image, or [B, outs], or none.
extern "C" __launch_bounds__(32 * WARPS, sizeof(real) == 4 ? 3 : 1) __global__ void conv3x3(
    int batch, int height, int width, int ins, int outs, int x_vectors, int y_vectors, int bias_step,
    const store* x, const real* packed, const store* bias, store* y) {
    __shared__ Real4 weights[BUFFERS][INS * PLANE / 4];
    __shared__ Real4 tiles[BUFFERS][WARPS][AROUND * LINE / 4];
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    int line = lane % SIDE, group = lane / SIDE, chunks = (ins + INS - 1) / INS;
    Place place = place_of((int)blockIdx.x * WARPS + warp, height, width);
    Images images = {x, batch, height, width, ins, x_vectors};
    packed += (long long)blockIdx.y * chunks * INS * PLANE;

    real sums[SIDE][8];
#pragma unroll
    for (int p = 0; p < SIDE; p++)
#pragma unroll
        for (int j = 0; j < 8; j++) sums[p][j] = 0;

    auto fill = [&](int chunk) {
        for (int e = (int)threadIdx.x; e < INS * PLANE / 4; e += 32 * WARPS)
            send(weights[chunk % BUFFERS] + e, packed + (long long)chunk * INS * PLANE + 4 * e, true);
        for (int e = lane; e < AROUND * AROUND * (INS / 4); e += 32) {
            int quarter = e % (INS / 4), pixel = e / (INS / 4), row = pixel / AROUND, column = pixel % AROUND;
            send_pixel(tiles[chunk % BUFFERS][warp] + (row * LINE + column * INS) / 4 + quarter, images, place.image,
                       place.row + row - 1, place.column + column - 1, chunk * INS + 4 * quarter);
        }
    };
    fill(0);
    sent();
#pragma unroll 1
    for (int chunk = 0; chunk < chunks; chunk++) {
        if (BUFFERS > 1) {
            if (chunk + 1 < chunks) fill(chunk + 1);
            sent();
        }
        all_arrived_but_last();
        __syncthreads();
        const Real4* weight = weights[chunk % BUFFERS] + 2 * group;
        const Real4* tile = tiles[chunk % BUFFERS][warp] + line * (LINE / 4);
#pragma unroll 1
        for (int quarter = 0; quarter < INS / 4; quarter++)
#pragma unroll 1
            for (int tap_row = 0; tap_row < 3; tap_row++) {
                Real4 pixels[AROUND];
#pragma unroll
                for (int p = 0; p < AROUND; p++) pixels[p] = tile[tap_row * (LINE / 4) + p * (INS / 4) + quarter];
#pragma unroll
                for (int k = 0; k < 4; k++)
#pragma unroll
                    for (int tap = 0; tap < 3; tap++) {
                        int from = (4 * quarter + k) * (PLANE / 4) + (3 * tap_row + tap) * (OUTS / 4);
                        Real4 low = weight[from], high = weight[from + 1];
#pragma unroll
                        for (int p = 0; p < SIDE; p++)
#pragma unroll
                            for (int j = 0; j < 4; j++) {
                                sums[p][j] = fused(pixels[p + tap].at[k], low.at[j], sums[p][j]);
                                sums[p][j + 4] = fused(pixels[p + tap].at[k], high.at[j], sums[p][j + 4]);
                            }
                    }
            }
        __syncthreads();
        if (BUFFERS == 1 && chunk + 1 < chunks) {
            fill(chunk + 1);
            sent();
        }
    }

    int row = place.row + line, out = (int)blockIdx.y * OUTS + 8 * group;
    if (place.image >= batch || row >= height || out >= outs) return;
    real shift[8];
#pragma unroll
    for (int j = 0; j < 8; j++) shift[j] = bias && out + j < outs ? widen(bias[(long long)place.image * bias_step + out + j]) : (real)0;
#pragma unroll
    for (int p = 0; p < SIDE; p++) {
        if (place.column + p >= width) break;
        store* to = y + (((long long)place.image * height + row) * width + place.column + p) * outs + out;
#pragma unroll
        for (int j = 0; j < 8; j += 4) {
            if (y_vectors && out + j < outs) {
                Stored4 four;
#pragma unroll
                for (int k = 0; k < 4; k++) put(four.at + k, sums[p][j + k] + shift[j + k]);
                *(Stored4*)(to + j) = four;
            } else {
#pragma unroll
                for (int k = 0; k < 4; k++)
                    if (out + j + k < outs) put(to + j + k, sums[p][j + k] + shift[j + k]);
            }
        }
    }
}

// ---- the gradient of the weights -------------------------------------------------------------------------------------------
//
// A block has 32 channels of the image, 32 of the result and every gridDim.x-th tile; its warps have a row of taps each, a
// thread the 3 taps of the row, 4 channels of the image and 8 of the result. parts [gridDim.x, outs, 3, 3, ins] are to be
// summed. Grid (parts, ins / 32, outs / 32).

#define PAIRED 32

extern "C" __launch_bounds__(96) __global__ void conv3x3_weights(
    int batch, int height, int width, int ins, int outs, int x_vectors, int dy_vectors,
    const store* x, const store* dy, real* parts) {
    __shared__ Real4 images[BUFFERS][AROUND * AROUND * PAIRED / 4];
    __shared__ Real4 slopes[BUFFERS][SIDE * SIDE * PAIRED / 4];
    int lane = (int)threadIdx.x, tap_row = (int)threadIdx.y, thread = tap_row * 32 + lane;
    int in = lane % 8, out = lane / 8, in_first = (int)blockIdx.y * PAIRED, out_first = (int)blockIdx.z * PAIRED;
    int tiles = batch * ((height + SIDE - 1) / SIDE) * ((width + SIDE - 1) / SIDE);
    Images from_x = {x, batch, height, width, ins, x_vectors}, from_dy = {dy, batch, height, width, outs, dy_vectors};

    real sums[3][8][4];
#pragma unroll
    for (int tap = 0; tap < 3; tap++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) sums[tap][j][k] = 0;

    auto fill = [&](int tile, int buffer) {
        Place place = place_of(tile, height, width);
        for (int e = thread; e < AROUND * AROUND * (PAIRED / 4); e += 96) {
            int pixel = e / (PAIRED / 4);
            send_pixel(images[buffer] + e, from_x, place.image, place.row + pixel / AROUND - 1, place.column + pixel % AROUND - 1,
                       in_first + 4 * (e % (PAIRED / 4)));
        }
        for (int e = thread; e < SIDE * SIDE * (PAIRED / 4); e += 96) {
            int pixel = e / (PAIRED / 4);
            send_pixel(slopes[buffer] + e, from_dy, place.image, place.row + pixel / SIDE, place.column + pixel % SIDE,
                       out_first + 4 * (e % (PAIRED / 4)));
        }
    };
    int step = (int)gridDim.x, buffer = 0;
    if ((int)blockIdx.x < tiles) fill((int)blockIdx.x, 0);
    sent();
#pragma unroll 1
    for (int tile = (int)blockIdx.x; tile < tiles; tile += step) {
        if (BUFFERS > 1) {
            if (tile + step < tiles) fill(tile + step, 1 - buffer);
            sent();
        }
        all_arrived_but_last();
        __syncthreads();
        Place place = place_of(tile, height, width);
        int rows = height - place.row < SIDE ? height - place.row : SIDE, columns = width - place.column;
#pragma unroll 1
        for (int row = 0; row < rows; row++) {
            const Real4* line = images[buffer] + (row + tap_row) * AROUND * (PAIRED / 4) + in;
            const Real4* slope = slopes[buffer] + row * SIDE * (PAIRED / 4) + 2 * out;
            Real4 pixels[AROUND];
            pixels[0] = line[0];
            pixels[1] = line[PAIRED / 4];
#pragma unroll
            for (int column = 0; column < SIDE; column++) {
                if (column % 4 == 0 && column >= columns) break;
                pixels[column + 2] = line[(column + 2) * (PAIRED / 4)];
                Real4 low = slope[column * (PAIRED / 4)], high = slope[column * (PAIRED / 4) + 1];
#pragma unroll
                for (int tap = 0; tap < 3; tap++)
#pragma unroll
                    for (int j = 0; j < 4; j++)
#pragma unroll
                        for (int k = 0; k < 4; k++) {
                            sums[tap][j][k] = fused(low.at[j], pixels[column + tap].at[k], sums[tap][j][k]);
                            sums[tap][j + 4][k] = fused(high.at[j], pixels[column + tap].at[k], sums[tap][j + 4][k]);
                        }
            }
        }
        __syncthreads();
        if (BUFFERS > 1) {
            buffer = 1 - buffer;
        } else if (tile + step < tiles) {
            fill(tile + step, 0);
            sent();
        }
    }

#pragma unroll
    for (int j = 0; j < 8; j++) {
        int to_out = out_first + 8 * out + j;
        if (to_out >= outs) break;
#pragma unroll
        for (int tap = 0; tap < 3; tap++)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                int to_in = in_first + 4 * in + k;
                if (to_in < ins) parts[(((long long)blockIdx.x * outs + to_out) * 9 + 3 * tap_row + tap) * ins + to_in] = sums[tap][j][k];
            }
    }
}
