#pragma once

#include "tuiqiao/diffusion/unet.h"

namespace tuiqiao {

/// Throws: std::invalid_argument "[FUNCTION] field ...".
void check_unet_config(const UNetConfig& config, const char* function);

}  // namespace tuiqiao
