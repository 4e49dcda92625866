/* Included by each xxh3_*.c after it chose its instruction set and named XXH3_FUNCTION. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "xxh3.h"

void XXH3_FUNCTION(const void *data, size_t length, unsigned char out[16])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, length));
    __builtin_memcpy(out, canonical.digest, 16);
}
