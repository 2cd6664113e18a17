// Follows the kernels and the table `kernels` of them.

// 0: done; 1: no such kernel; 2: another number of arguments; 3: a barrier that not every thread reaches.
extern "C" int emulate(const char* name, const unsigned int* grid, const unsigned int* block, void** args, int n) {
    using namespace emulator;
    for (const Kernel& kernel : kernels) {
        if (std::strcmp(kernel.name, name)) continue;
        if (kernel.arity != n) return 2;
        body = kernel.run;
        arguments = args;
        gridDim = Dim{grid[0], grid[1], grid[2]};
        blockDim = Dim{block[0], block[1], block[2]};
        bool backwards = launches++ % 2;
        unsigned long blocks = (unsigned long)gridDim.x * gridDim.y * gridDim.z;
        for (unsigned long i = 0; i < blocks; i++) {
            blockIdx = place(backwards ? blocks - 1 - i : i, gridDim);
            if (!kernel.barriers) run_plainly(backwards);
            else if (!run_block(backwards)) return 3;
        }
        return 0;
    }
    return 1;
}
