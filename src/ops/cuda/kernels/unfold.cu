// Patches of images: x [B, h, w, c] to [B, out_h, out_w, taps, taps, c], zeros where a tap lies outside.

extern "C" __global__ void unfold(
    int n, int h, int w, int c, int out_h, int out_w, int taps, int stride, int before, const store* x, store* patches) {
    int i = element();
    if (i >= n) return;
    int channel = i % c, rest = i / c;
    int tap_column = rest % taps; rest /= taps;
    int tap_row = rest % taps; rest /= taps;
    int column = rest % out_w * stride + tap_column - before; rest /= out_w;
    int row = rest % out_h * stride + tap_row - before, image = rest / out_h;
    bool inside = row >= 0 && row < h && column >= 0 && column < w;
    put(patches + i, inside ? widen(x[((image * h + row) * w + column) * c + channel]) : (real)0);
}

// Each pixel of dx is the sum over the patches that saw it, in the order of the taps; n is that of dx.
extern "C" __global__ void fold(
    int n, int h, int w, int c, int out_h, int out_w, int taps, int stride, int before, const store* patches, store* dx) {
    int i = element();
    if (i >= n) return;
    int channel = i % c, rest = i / c;
    int column = rest % w; rest /= w;
    int row = rest % h, image = rest / h;
    real sum = 0;
    for (int tap_row = 0; tap_row < taps; tap_row++) {
        int from_row = row + before - tap_row;
        if (from_row < 0 || from_row % stride || from_row / stride >= out_h) continue;
        for (int tap_column = 0; tap_column < taps; tap_column++) {
            int from_column = column + before - tap_column;
            if (from_column < 0 || from_column % stride || from_column / stride >= out_w) continue;
            int pixel = (image * out_h + from_row / stride) * out_w + from_column / stride;
            sum += widen(patches[((pixel * taps + tap_row) * taps + tap_column) * c + channel]);
        }
    }
    put(dx + i, sum);
}
