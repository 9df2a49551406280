// Exact slice arithmetic for the certificate's accelerator (spec/slices.py).
#include <cfenv>
#include <cstdint>

// 1 when float64 subnormals survive arithmetic on this thread (flush-to-zero and denormals-are-zero are off).
extern "C" __attribute__((visibility("default"))) int slices_subnormals_survive() {
  volatile double tiny = 4.9406564584124654e-324, half = 0.5, two = 2.0;
  volatile double kept = tiny * two * half;
  return kept == tiny && std::fegetround() == FE_TONEAREST;
}
