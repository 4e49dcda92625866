#if defined(__x86_64__)
#pragma GCC target("avx512f")
#define XXH3_FUNCTION xxh3_avx512
#include "xxh3_body.h"
#endif
