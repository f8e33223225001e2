#include "geossl.h"

/* The interface this library was built with. */
GEOSSL_EXPORT int geossl_abi(void) { return GEOSSL_ABI; }
