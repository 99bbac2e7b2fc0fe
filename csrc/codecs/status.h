// What became of a decode; the numbers are fastaug.codecs.Status. Beside a status goes the byte offset of the trouble.
#pragma once

#include "../fa_compat.h"

namespace fa {

enum Status : int {
    kOk = 0,
    kEmpty,        // no bytes
    kUnsupported,  // another decoder's business
    kBadHeader,    // a header contradicts itself or the specification
    kNoFormat,     // WAVE without a format chunk
    kNoData,       // no audio data
    kTruncated,    // the data end before the samples asked for
    kCorrupt,      // a damaged frame
    kNotFinite,    // NaN or infinite samples
    kChannels,     // another number of channels than asked for
    kNoMemory,     //
    kGap,          // bytes that belong to no frame, or missing frames: zeros on the timeline
    kChanged,      // rate, channels or depth change in mid-stream: zeros in their place
    kMislabeled,   // the header contradicts the frames (rate, channels, depth, length); the frames were believed
};

// Whether there are samples: right ones where frames are whole, zeros in place of the others.
FA_HD bool status_usable(int status) {
    return status == kOk || status == kTruncated || status == kCorrupt || status == kGap || status == kChanged ||
           status == kMislabeled;
}

}  // namespace fa
