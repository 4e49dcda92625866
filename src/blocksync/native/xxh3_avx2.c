#if defined(__x86_64__)
#pragma GCC target("avx2")
#define XXH3_FUNCTION xxh3_avx2
#include "xxh3_body.h"
#endif
