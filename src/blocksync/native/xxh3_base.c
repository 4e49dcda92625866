#define XXH3_FUNCTION xxh3_base
#include "xxh3_body.h"
