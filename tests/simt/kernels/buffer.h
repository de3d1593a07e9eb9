/* Device memory with an array's values, freed at the end of the scope. */
#ifndef TESTS_SIMT_KERNELS_BUFFER_H
#define TESTS_SIMT_KERNELS_BUFFER_H

#include <vector>

template <typename T> struct buffer {
    T *data;
    size_t count;

    explicit buffer(const std::vector<T> &values) : data(), count(values.size())
    {
        cudaMalloc((void **)&data, count * sizeof(T));
        cudaMemcpy(data, values.data(), count * sizeof(T), cudaMemcpyHostToDevice);
    }
    buffer(const T *values, size_t count) : buffer(std::vector<T>(values, values + count))
    {
    }
    explicit buffer(size_t count) : buffer(std::vector<T>(count))
    {
    }
    ~buffer()
    {
        cudaFree(data);
    }
    buffer(const buffer &) = delete;
    buffer &operator=(const buffer &) = delete;

    std::vector<T> read() const
    {
        std::vector<T> values(count);
        cudaMemcpy(values.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost);
        return values;
    }
    bool equals(const std::vector<T> &expected) const
    {
        return read() == expected;
    }
};

/* 1, 2, 3, ... */
template <typename T> static std::vector<T> counting(size_t count)
{
    std::vector<T> values(count);
    for (size_t i = 0; i < count; i++)
        values[i] = T(i + 1);
    return values;
}

#endif
