// Every function that Python may call. Tensors arrive as addresses of contiguous memory, sizes as long long, flags as
// int, `threads` as the largest number of threads to use. Shapes and dtypes are checked in fastaug/ops/, once.
// To add one: declare it here, define it in csrc/cpu/<op>.cpp, and add its FA_BIND line in module.cpp.
#pragma once

// Philox4x32-10 of n counters: counters (n, 4), keys (n, 2), words (n, 4), all uint32.
void fa_philox4x32(const unsigned* counters, const unsigned* keys, unsigned* words, long long n);

// csrc/cpu/noise.cpp
void fa_noise(const float* x, float* y, const long long* keys, const float* level, const unsigned char* active,
              long long rows, long long channels, long long length, int mode, long long threads);

// csrc/cpu/resample.cpp. sorted: the taps in the order of csrc/resample_tile.h, or null.
void fa_resample_table(const double* master, long long density, double support, double scale, long long half,
                       float* table);
void fa_resample(const float* x, float* y, long long rows, long long stride, long long count, long long x_start,
                 long long start, long long length, long long up, long long down, const float* taps, long long half,
                 int interpolated, const float* sorted, long long spread, long long threads);

// csrc/cpu/reverb.cpp. settings: (rows, 6) reverberance, hf_damping, room_scale, stereo_depth, pre_delay_ms,
// wet_gain_db. y may be x.
void fa_reverb(const float* x, float* y, const float* settings, const unsigned char* active, long long rows,
               long long channels, long long length, double rate, int wet_only, int clip, int adjoint,
               long long threads);

// csrc/cpu/wsola.cpp
void fa_time_stretch(const float* x, float* y, const double* factor, const unsigned char* active, long long rows,
                     long long channels, long long length, long long out_length, double rate, long long threads);
void fa_pitch_shift(const float* x, float* y, const double* factor, const unsigned char* active, long long rows,
                    long long channels, long long length, double rate, const double* prototype, long long density,
                    double support, long long threads);

// csrc/cpu/fir.cpp
void fa_windowed_sinc(const float* x, float* y, const double* cutoff, const unsigned char* highpass,
                      const unsigned char* active, long long rows, long long channels, long long length,
                      long long zeros, long long threads);

// csrc/cpu/pointwise.cpp
void fa_scale(const float* x, float* y, const float* factor, const unsigned char* active, long long rows,
              long long channels, long long length, int clip, long long threads);
void fa_echo(const float* x, float* y, const long long* offset, const float* dry, const float* wet,
             const unsigned char* active, long long rows, long long channels, long long length, long long threads);
void fa_crop(const float* x, float* y, const long long* starts, long long rows, long long channels, long long length,
             long long out_length, long long threads);
