// Every function that Python may call. Tensors arrive as addresses of contiguous memory, sizes as long long, flags as
// int, `threads` as the largest number of threads to use. Shapes and dtypes are checked in fastaug/ops/, once.
// To add one: declare it here, define it in csrc/cpu/<op>.cpp, and add its FA_BIND line in module.cpp.
#pragma once

// Philox4x32-10 of n counters: counters (n, 4), keys (n, 2), words (n, 4), all uint32.
void fa_philox4x32(const unsigned* counters, const unsigned* keys, unsigned* words, long long n);

// csrc/cpu/draws.cpp. Subkeys (n, 2) of ids (n, 2), low word first: two words of counter (id, id, epoch, place) under
// the key (low, high).
void fa_subkeys(const unsigned* ids, unsigned* subkeys, long long n, long long low, long long high, long long epoch,
                long long place);

// One value for each of n keys (n, 2) from word 0 of block (0, 0, stream, 0): low + (high - low) u
// and u < p with u = (word >> 8) * 2^-24; low + (word * span >> 32), span at most 2^32, and
// such a number over divisor.
void fa_draw_uniforms(const unsigned* keys, float* values, long long n, long long stream, double low, double high);
void fa_draw_fractions(const unsigned* keys, float* values, long long n, long long stream, long long low,
                       long long span, double divisor);
void fa_draw_coins(const unsigned* keys, unsigned char* values, long long n, long long stream, double p);
void fa_draw_integers(const unsigned* keys, long long* values, long long n, long long stream, long long low,
                      long long span);

// csrc/cpu/resample.cpp
void fa_resample_table(const double* master, long long density, double support, double scale, long long half,
                       float* table);
void fa_resample(const float* x, float* y, long long rows, long long stride, long long count, long long x_start,
                 long long start, long long length, long long up, long long down, const float* taps, long long half,
                 int interpolated, long long threads);

// csrc/cpu/fft.cpp. Of an FFT of n points: the radices of its passes (at most 16), whose number is returned, and where
// each bin lies behind them (null: not wanted). 0 where n has a prime factor above 7.
int fa_fft_order(int n, int* radices, int* positions);

// csrc/cpu/resample_fft.cpp: the same as fa_resample, by blocks; csrc/resample_fft.h names the numbers.
void fa_resample_blocks(const float* x, float* y, long long rows, long long stride, long long count, long long x_start,
                        long long start, long long length, long long up, long long down, const float* taps,
                        long long half, int interpolated, long long outputs, long long hop, long long lead,
                        int forward_size, int inverse_size, const int* target, const int* sources, const float* factors,
                        long long threads);
// csrc/cpu/halve.cpp: what it does where `sources` is null. up / down is 1 / 2, hop twice the outputs.
void fa_halve_rate(const float* x, float* y, long long rows, long long stride, long long count, long long x_start,
                   long long start, long long length, const float* taps, long long half, long long outputs,
                   long long lead, int size, const float* factors, long long threads);

// csrc/cpu/reverb.cpp. settings: (rows, 6) reverberance, hf_damping, room_scale, stereo_depth, pre_delay_ms,
// wet_gain_db. y may be x.
void fa_reverb(const float* x, float* y, const float* settings, const unsigned char* active, long long rows,
               long long channels, long long length, double rate, int wet_only, int clip, int adjoint,
               long long threads);

// csrc/cpu/wsola.cpp
void fa_time_stretch(const float* x, float* y, const double* factor, const unsigned char* active, long long rows,
                     long long channels, long long length, long long out_length, double rate, long long threads);
void fa_pitch_shift(const float* x, float* y, const double* factor, const unsigned char* active, long long rows,
                    long long channels, long long length, double rate, const float* half_band, long long threads);

// csrc/cpu/fir.cpp
void fa_windowed_sinc(const float* x, float* y, const double* cutoff, const unsigned char* highpass,
                      const unsigned char* active, long long rows, long long channels, long long length,
                      long long zeros, long long threads);

// csrc/cpu/iir.cpp. sos: (rows, count, 6) b0, b1, b2, a0, a1, a2. Each returns -1, or the first row (filter: row *
// count + section) whose numbers make no stable filter; then nothing was filtered. Without x: that check alone.
long long fa_sos_filter(const float* x, float* y, const double* sos, const unsigned char* active, long long rows,
                        long long channels, long long length, long long count, long long threads);
long long fa_butterworth(const double* cutoff, const unsigned char* highpass, double* sos, long long rows,
                         long long order);
long long fa_biquads(int kind, const double* frequency, const double* q, const double* gain_db, double* sos,
                     long long rows);

// csrc/cpu/pointwise.cpp. y may be x if no window is cut out. fa_pointwise: one pass of window (starts), level, noise
// (keys), level; whatever is null does not happen. See csrc/pointwise.h and FaNoiseMode; valid: samples before padding.
void fa_pointwise(const float* x, float* y, const long long* starts, const unsigned char* flip, const float* factor,
                  const unsigned char* active, int clip, const long long* keys, const float* noise_level,
                  const unsigned char* noisy, const long long* valid, int mode, int clip_noise,
                  const unsigned char* flip_after, const float* factor_after, const unsigned char* active_after,
                  int clip_after, long long rows, long long channels, long long length, long long out_length,
                  long long threads);
// Rows of `size` samples: row r of y is row r % given of x.
void fa_repeat(const float* x, float* y, long long rows, long long given, long long size, long long threads);
void fa_echo(const float* x, float* y, const long long* offset, const float* dry, const float* wet,
             const unsigned char* active, long long rows, long long channels, long long length, long long threads);

// csrc/cpu/flac.cpp. facts (8,): rate, channels, bits, samples per channel, block, first byte of the frames, byte
// behind them, byte of the trouble or -1; md5 (16,). Both return a status of csrc/codecs/status.h.
int fa_flac_probe(const unsigned char* data, long long size, long long* facts, unsigned char* md5);
// Samples [start, start + length) to floats (channels, stride), or, where that is null, to integers (channels, stride).
int fa_flac_decode(const unsigned char* data, long long size, long long start, long long length, float* floats,
                   int* integers, long long stride, long long* trouble);

// csrc/cpu/decode.cpp. Tables of int64, one row a member or plan; their fields are named in member.h and crops.h.
// fa_audio_release frees what fa_audio_probe keeps of the members.
void fa_audio_probe(long long* members, long long count, long long threads);
void fa_audio_release(long long* members, long long count);
// wanted: (4, count) columns of Wanted; outcomes (count, 2): status and byte offset, written where a crop failed. rate:
// of the output, 0 keeps each member's own; plans: one for each other rate of the members. Returns how many crops (or
// pieces of long ones) failed.
long long fa_audio_decode(const long long* members, const long long* wanted, long long count, long long rate,
                          const long long* plans, long long plan_count, long long* outcomes, float* y, long long rows,
                          long long channels, long long length, long long longest, long long threads);

// csrc/cpu/tar.cpp. Walks the headers of a tar; entries: (capacity, 8), its fields are named there. Returns how many
// there are; those beyond `capacity` are not written.
long long fa_tar_scan(const unsigned char* file, long long size, long long* entries, long long capacity);

// csrc/cpu/stage.cpp: what a GPU needs of crops of WAV and FLAC members. crops: rows of StageCrop, whose status is
// written: other than 0, the crop is not staged. sizes (7,): bytes of audio; rows of the tables of WAV clips, frame
// lanes, groups and planes; int32 of scratch; the most pieces of a WAV clip. fa_stage_plan
// returns a handle for fa_stage_fill, which writes tables and audio and frees it, or frees it alone where `audio` is
// null.
long long fa_stage_plan(const long long* members, long long* crops, long long count, long long* sizes,
                        long long threads);
void fa_stage_fill(long long handle, unsigned char* audio, long long offset, long long* tables, long long threads);

// csrc/cpu/mp3_stage.cpp: what csrc/cuda/mp3_*.cu read. pieces: int64 rows, their fields are named there.
// fa_mp3_gpu_tables fills FaMp3GpuTables, where given, and returns its size. fa_mp3_stage writes the main data and the
// units (unit_count, 4) that fa_mp3_measure counted, which of them to decode in which order, and the crops (count, 9)
// as FaMp3Crop; returns how many units there are to decode.
long long fa_mp3_gpu_tables(unsigned char* to);
void fa_mp3_measure(long long* pieces, long long count);
long long fa_mp3_stage(long long* pieces, long long count, unsigned char* main, unsigned* units, unsigned* order,
                       long long unit_count, long long* crops, long long threads);

// csrc/cpu/spec.cpp. x, y: (rows, channels, bins, frames); y may be x in fa_spec_mask. freq_start, freq_size: (rows,
// freq_count), time likewise; mean: the fill is the mean of the valid frames. freq_at: (rows, bins) or null, time_at:
// (rows, frames), positions of the outputs; freq_range, time_range: (rows, 2) first and last element to use, or null.
void fa_spec_mask(const float* x, float* y, const long long* freq_start, const long long* freq_size,
                  long long freq_count, const long long* time_start, const long long* time_size, long long time_count,
                  double fill, int mean, const long long* valid, const unsigned char* active, long long rows,
                  long long channels, long long bins, long long frames, long long threads);
void fa_spec_warp(const float* x, float* y, const float* freq_at, const long long* freq_range, const float* time_at,
                  const long long* time_range, int cubic, const unsigned char* active, long long rows,
                  long long channels, long long bins, long long frames, long long threads);

// csrc/cpu/spectral.cpp. x (rows, length) to y (rows, bands, frames), float or (narrow) bfloat16; csrc/spectral.h names
// the numbers. window (width, padded to a multiple of 4 by zeros), halved; the bank as in FaBank. n_fft: even, at
// most 16384, without prime factors above 7. fa_spectral_settle: y (clips, count) in place; top_db < 0: none.
void fa_spectral(const float* x, void* y, int narrow, const float* window, const float* weights, const int* first,
                 const int* begin, long long bands, long long rows, long long length, long long frames, long long hop,
                 long long lead, long long width, long long n_fft, int reflect, double gain, double offset,
                 double floor, double scale, double shift, int logarithm, int magnitude, long long threads);
void fa_spectral_settle(float* y, long long clips, long long count, double top_db, int normalise, long long threads);
