// The Python face of csrc/cpu: one module under the limited API, so one binary serves Python 3.10 and later.
// Calls take plain ints and floats (0.2 us a call), check arity and types, and release the GIL.
#include <Python.h>

#include <functional>
#include <limits>
#include <new>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "api.h"
#include "parallel.h"

namespace {

bool fail(const char* function, Py_ssize_t index, const char* expected, PyObject* got) {
    PyObject* type = PyObject_Type(got);
    PyObject* name = type ? PyObject_GetAttrString(type, "__name__") : nullptr;
    PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "%s() argument %zd must be %s, got %V", function, index + 1, expected, name,
                 "another object");
    Py_XDECREF(name);
    Py_XDECREF(type);
    return false;
}

bool convert_integer(const char* function, Py_ssize_t index, PyObject* object, long long low, long long high,
                     long long& value) {
    if (!PyLong_Check(object)) return fail(function, index, "an int", object);
    int overflow = 0;
    value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow || value < low || value > high) {
        PyErr_Format(PyExc_OverflowError, "%s() argument %zd is out of range: %R", function, index + 1, object);
        return false;
    }
    return true;
}

// One overload per kind of C parameter: an address (int, or None for null), an integer, a real number.
template <class T>
bool convert(const char* function, Py_ssize_t index, PyObject* object, T& value) {
    if constexpr (std::is_pointer_v<T>) {
        value = nullptr;
        if (object == Py_None) return true;
        if (!PyLong_Check(object)) return fail(function, index, "an address (int) or None", object);
        value = static_cast<T>(PyLong_AsVoidPtr(object));
        return !(value == nullptr && PyErr_Occurred());
    } else if constexpr (std::is_integral_v<T>) {
        static_assert(std::is_signed_v<T>, "use int or long long for numbers");
        long long wide = 0;
        const bool good = convert_integer(function, index, object, std::numeric_limits<T>::min(),
                                          std::numeric_limits<T>::max(), wide);
        value = static_cast<T>(wide);
        return good;
    } else {
        static_assert(std::is_floating_point_v<T>, "unsupported parameter type");
        if (!PyFloat_Check(object) && !PyLong_Check(object)) return fail(function, index, "a float", object);
        value = static_cast<T>(PyFloat_AsDouble(object));
        return !PyErr_Occurred();
    }
}

// Runs `work` without the GIL. A C++ exception becomes a Python one.
template <class Work>
bool without_gil(const char* function, Work&& work) {
    PyObject* kind = nullptr;
    char message[256] = "";
    PyThreadState* state = PyEval_SaveThread();
    try {
        work();
    } catch (const std::bad_alloc&) {
        kind = PyExc_MemoryError;
        PyOS_snprintf(message, sizeof message, "not enough memory");
    } catch (const std::exception& error) {
        kind = PyExc_RuntimeError;
        PyOS_snprintf(message, sizeof message, "%s", error.what());
    }
    PyEval_RestoreThread(state);
    if (kind) PyErr_Format(kind, "%s(): %s", function, message);
    return kind == nullptr;
}

template <class... Args, size_t... Index>
bool convert_all(const char* name, PyObject* const* objects, std::tuple<Args...>& values,
                 std::index_sequence<Index...>) {
    (void)objects;
    return (convert(name, static_cast<Py_ssize_t>(Index), objects[Index], std::get<Index>(values)) && ...);
}

template <class Result, class... Args, size_t... Index>
PyObject* call(const char* name, Result (*function)(Args...), PyObject* const* objects,
               std::index_sequence<Index...> all) {
    std::tuple<Args...> values{};
    if (!convert_all(name, objects, values, all)) return nullptr;
    if constexpr (std::is_void_v<Result>) {
        if (!without_gil(name, [&] { function(std::get<Index>(values)...); })) return nullptr;
        Py_RETURN_NONE;
    } else {
        Result result{};
        if (!without_gil(name, [&] { result = function(std::get<Index>(values)...); })) return nullptr;
        if constexpr (std::is_integral_v<Result>) return PyLong_FromLongLong(result);
        if constexpr (std::is_floating_point_v<Result>) return PyFloat_FromDouble(result);
    }
}

bool check_count(const char* name, Py_ssize_t wanted, Py_ssize_t given) {
    if (given != wanted) PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, got %zd", name, wanted, given);
    return given == wanted;
}

template <class Result, class... Args>
PyObject* checked_call(const char* name, Result (*function)(Args...), PyObject* const* objects, Py_ssize_t given) {
    if (!check_count(name, sizeof...(Args), given)) return nullptr;
    return call(name, function, objects, std::index_sequence_for<Args...>{});
}

// A call that waits for run_rows: a capsule with the function and its arguments.
using Step = std::function<void()>;
constexpr char kStep[] = "fastaug._native.step";

template <class... Args>
PyObject* later(const char* name, void (*function)(Args...), PyObject* const* objects, Py_ssize_t given) {
    std::tuple<Args...> values{};
    if (!check_count(name, sizeof...(Args), given)) return nullptr;
    if (!convert_all(name, objects, values, std::index_sequence_for<Args...>{})) return nullptr;
    Step* step = new (std::nothrow) Step([function, values] { std::apply(function, values); });
    if (!step) return PyErr_NoMemory();
    PyObject* capsule = PyCapsule_New(
        step, kStep, [](PyObject* made) { delete static_cast<Step*>(PyCapsule_GetPointer(made, kStep)); });
    if (!capsule) delete step;
    return capsule;
}

// run_rows(rows, threads, step, ...): each row through all steps, see rows_through.
PyObject* run_rows(PyObject*, PyObject* const* objects, Py_ssize_t given) {
    long long rows = 0, threads = 0;
    if (given < 2) return check_count("run_rows", 2, given), nullptr;
    if (!convert("run_rows", 0, objects[0], rows) || !convert("run_rows", 1, objects[1], threads)) return nullptr;
    std::vector<std::reference_wrapper<const Step>> steps;
    for (Py_ssize_t i = 2; i < given; ++i) {
        const void* step = PyCapsule_GetPointer(objects[i], kStep);
        if (!step) return nullptr;
        steps.push_back(*static_cast<const Step*>(step));
    }
    if (!without_gil("run_rows", [&] { fa::rows_through(steps, rows, threads); })) return nullptr;
    Py_RETURN_NONE;
}

// bytes_at(items, table, fields): address and size of each bytes object of a list, into the first two fields of a row.
// False if one is something else: NumPy takes a microsecond for each.
PyObject* bytes_at(PyObject*, PyObject* const* objects, Py_ssize_t given) {
    if (!check_count("bytes_at", 3, given)) return nullptr;
    long long *row = nullptr, fields = 0;
    if (!PyList_Check(objects[0])) return fail("bytes_at", 0, "a list", objects[0]), nullptr;
    if (!convert("bytes_at", 1, objects[1], row) || !convert("bytes_at", 2, objects[2], fields)) return nullptr;
    for (Py_ssize_t i = 0; i < PyList_Size(objects[0]); ++i, row += fields) {
        PyObject* item = PyList_GetItem(objects[0], i);
        if (!PyBytes_Check(item)) Py_RETURN_FALSE;
        row[0] = static_cast<long long>(reinterpret_cast<intptr_t>(PyBytes_AsString(item)));
        row[1] = static_cast<long long>(PyBytes_Size(item));
    }
    Py_RETURN_TRUE;
}

using FastCall = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);

PyCFunction as_method(FastCall function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

#define FA_BIND(name)                                                                          \
    {#name, as_method([](PyObject*, PyObject* const* objects, Py_ssize_t given) -> PyObject* { \
         return checked_call(#name, name, objects, given);                                     \
     }),                                                                                       \
     METH_FASTCALL, nullptr}

// An op on rows that may also wait, with others, until a row goes through all of them.
#define FA_BIND_ROWS(name)                                                                                 \
    FA_BIND(name), {                                                                                       \
        #name "_later", as_method([](PyObject*, PyObject* const* objects, Py_ssize_t given) -> PyObject* { \
            return later(#name, name, objects, given);                                                     \
        }),                                                                                                \
            METH_FASTCALL, nullptr                                                                         \
    }

// One line per function of api.h.
// clang-format off
PyMethodDef methods[] = {
    FA_BIND(fa_philox4x32),
    FA_BIND(fa_subkeys),
    FA_BIND(fa_draw_uniforms),
    FA_BIND(fa_draw_coins),
    FA_BIND(fa_draw_integers),
    FA_BIND(fa_draw_fractions),
    FA_BIND(fa_resample_table),
    FA_BIND(fa_resample),
    FA_BIND(fa_fft_order),
    FA_BIND(fa_resample_blocks),
    FA_BIND_ROWS(fa_reverb),
    FA_BIND(fa_time_stretch),
    FA_BIND_ROWS(fa_pitch_shift),
    FA_BIND_ROWS(fa_windowed_sinc),
    FA_BIND(fa_sos_filter),
    FA_BIND(fa_butterworth),
    FA_BIND(fa_biquads),
    FA_BIND_ROWS(fa_pointwise),
    FA_BIND_ROWS(fa_repeat),
    FA_BIND_ROWS(fa_echo),
    {"run_rows", as_method(run_rows), METH_FASTCALL, nullptr},
    FA_BIND(fa_flac_probe),
    FA_BIND(fa_flac_decode),
    {"bytes_at", as_method(bytes_at), METH_FASTCALL, nullptr},
    FA_BIND(fa_audio_probe),
    FA_BIND(fa_audio_release),
    FA_BIND(fa_audio_decode),
    FA_BIND(fa_tar_scan),
    FA_BIND(fa_stage_plan),
    FA_BIND(fa_stage_fill),
    FA_BIND(fa_mp3_gpu_tables),
    FA_BIND(fa_mp3_measure),
    FA_BIND(fa_mp3_stage),
    FA_BIND(fa_spec_mask),
    FA_BIND(fa_spec_warp),
    FA_BIND(fa_spectral),
    FA_BIND(fa_spectral_settle),
    {nullptr, nullptr, 0, nullptr},
};
// clang-format on

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "fastaug._native",
                          "Native CPU operators of fastaug.",
                          -1,
                          methods,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() {
    fa::install_fork_guard();
    PyObject* module = PyModule_Create(&definition);
    if (!module) return nullptr;
#ifdef _OPENMP
    PyModule_AddIntConstant(module, "openmp", 1);
#else
    PyModule_AddIntConstant(module, "openmp", 0);
#endif
#ifdef FA_STAMP
    PyModule_AddIntConstant(module, "stamp", FA_STAMP);
#endif
#ifdef __VERSION__
    PyModule_AddStringConstant(module, "compiler", __VERSION__);
#else
    PyModule_AddStringConstant(module, "compiler", "unknown");
#endif
    return module;
}
