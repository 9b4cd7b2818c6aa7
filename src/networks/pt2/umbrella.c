/* Stands in for libtorch.so, which holds nothing of its own: packages are linked against it, and the one of PyTorch's
   wheels would bring all of CUDA with it. */
extern const char bespoke_pt2_umbrella;
const char bespoke_pt2_umbrella = 0;
