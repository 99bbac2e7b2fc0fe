// What a decoder says of a file or of a range. Beside a status always goes `trouble`, the byte offset in the file at
// which it was seen (-1: nowhere in particular).
#pragma once

enum FaStatus {
    FA_OK = 0,

    // The samples that came are right, and zeros stand where none came.
    FA_TRUNCATED = 1,   // the bytes end before the samples do
    FA_GAP = 2,         // bytes that belong to no frame, or frames that are missing: zeros on the timeline
    FA_CORRUPT = 3,     // a frame that breaks the rules of its format or fails its checksum: zeros in its place
    FA_CHANGED = 4,     // rate, channels or depth change in mid-stream: zeros from there on
    FA_MISLABELED = 5,  // the header contradicts the frames (rate, channels, depth, length); the frames were believed

    // No samples.
    FA_NOT_THIS_FORMAT = 16,  // these bytes are of another kind
    FA_UNSUPPORTED = 17,      // of this kind, legal, and not implemented
    FA_NO_AUDIO = 18,         // of this kind, but without one frame that decodes
    FA_ARGUMENT = 19,         // the caller's sizes make no sense
};

// Whether samples can be had at all.
inline bool fa_status_usable(int status) { return status < FA_NOT_THIS_FORMAT; }
