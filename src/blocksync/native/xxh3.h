/* XXH3-128 with the widest vectors this processor has, as 16 canonical (big-endian) bytes.
 *
 * libxxhash's header is inlined once per instruction set, each in its own file: no run-time dependency,
 * and one build serves every machine of the architecture. */
#ifndef BLOCKSYNC_XXH3_H
#define BLOCKSYNC_XXH3_H

#include <stddef.h>

typedef void (*xxh3_fn)(const void *data, size_t length, unsigned char out[16]);

void xxh3_base(const void *data, size_t length, unsigned char out[16]);
#if defined(__x86_64__)
void xxh3_avx2(const void *data, size_t length, unsigned char out[16]);
void xxh3_avx512(const void *data, size_t length, unsigned char out[16]);
#endif

static inline xxh3_fn xxh3_best(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return xxh3_avx512;
    if (__builtin_cpu_supports("avx2"))
        return xxh3_avx2;
#endif
    return xxh3_base;
}

#endif
