/* libresample-dicom.so: one DICOM file by GDCM. No exception leaves it. */
#include "training/dicom.h"

#include <gdcmAttribute.h>
#include <gdcmImageHelper.h>
#include <gdcmImageReader.h>
#include <gdcmTrace.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

/* A text of the header without the padding that DICOM allows at its end. */
template <uint16_t group, uint16_t element>
static void copy_text(const gdcm::DataSet &header, char *text, size_t bytes)
{
    gdcm::Attribute<group, element> attribute;
    attribute.SetFromDataSet(header);
    std::string value = attribute.GetValue();
    size_t first = value.find_first_not_of(' ');
    size_t last = value.find_last_not_of(std::string(" \0", 2));
    if (first == std::string::npos || last == std::string::npos || last < first)
        return;
    snprintf(text, bytes, "%s", value.substr(first, last - first + 1).c_str());
}

/* The header alone first, so that nothing is allocated for a size that is a lie. */
static void read_header(const char *path, dicom_picture *picture)
{
    gdcm::Reader reader;
    reader.SetFileName(path);
    if (!reader.ReadUpToTag(gdcm::Tag(0x7fe0, 0x0010)))
        throw std::runtime_error("expected a DICOM file");
    const gdcm::DataSet &header = reader.GetFile().GetDataSet();
    gdcm::Attribute<0x0028, 0x0010> rows = {};
    gdcm::Attribute<0x0028, 0x0011> columns = {};
    gdcm::Attribute<0x0028, 0x0008> frames = {1};
    rows.SetFromDataSet(header);
    columns.SetFromDataSet(header);
    if (header.FindDataElement(frames.GetTag()))
        frames.SetFromDataSet(header);
    double pixels = (double)rows.GetValue() * columns.GetValue() * frames.GetValue();
    if (!(pixels > 0))
        throw std::runtime_error("there is no picture in it");
    if (pixels > DICOM_MOST_PIXELS)
        throw std::runtime_error("it has more than 64 million pixels");
    copy_text<0x0010, 0x0020>(header, picture->patient, sizeof picture->patient);
    copy_text<0x0008, 0x0060>(header, picture->modality, sizeof picture->modality);
}

static void check_colours(const gdcm::Image &image, dicom_picture *picture)
{
    gdcm::PhotometricInterpretation colours = image.GetPhotometricInterpretation();
    int samples = image.GetPixelFormat().GetSamplesPerPixel();
    bool grey = samples == 1 && (colours == gdcm::PhotometricInterpretation::MONOCHROME1 ||
                                 colours == gdcm::PhotometricInterpretation::MONOCHROME2);
    bool rgb = samples == 3 && colours == gdcm::PhotometricInterpretation::RGB &&
               image.GetPixelFormat() == gdcm::PixelFormat::UINT8;
    if (!grey && !rgb)
        throw std::runtime_error(std::string("its colours are ") + colours.GetString() +
                                 ", expected MONOCHROME1, MONOCHROME2 or RGB of 8 bits");
    picture->inverted = colours == gdcm::PhotometricInterpretation::MONOCHROME1;
    picture->channels = samples;
}

/* From the file's order (frames of planes or of pixels) to planes. */
template <typename T>
static void convert(const std::vector<char> &bytes, const gdcm::Image &image,
                    dicom_picture *picture)
{
    size_t plane = (size_t)picture->height * picture->width, channels = (size_t)picture->channels;
    size_t count = (size_t)picture->frames * channels * plane;
    bool rgb = channels == 3, planar = !rgb || image.GetPlanarConfiguration() == 1;
    double slope = rgb ? 2 / 255.0 : image.GetSlope(), first = rgb ? -1 : image.GetIntercept();
    if (bytes.size() < count * sizeof(T))
        throw std::runtime_error("it ends in the middle of the pixels");
    picture->values = static_cast<float *>(std::malloc(count * sizeof(float)));
    if (!picture->values)
        throw std::bad_alloc();
    for (size_t i = 0; i < count; i++) {
        size_t pixel = i % plane, channel = i / plane % channels, frame = i / plane / channels;
        size_t from = planar ? i : (frame * plane + pixel) * channels + channel;
        T value;
        std::memcpy(&value, bytes.data() + from * sizeof(T), sizeof(T));
        picture->values[i] = (float)((double)value * slope + first);
    }
}

static void convert_any(const std::vector<char> &bytes, const gdcm::Image &image,
                        dicom_picture *picture)
{
    switch (image.GetPixelFormat().GetScalarType()) {
    case gdcm::PixelFormat::UINT8:
        return convert<uint8_t>(bytes, image, picture);
    case gdcm::PixelFormat::INT8:
        return convert<int8_t>(bytes, image, picture);
    case gdcm::PixelFormat::UINT12:
    case gdcm::PixelFormat::UINT16:
        return convert<uint16_t>(bytes, image, picture);
    case gdcm::PixelFormat::INT12:
    case gdcm::PixelFormat::INT16:
        return convert<int16_t>(bytes, image, picture);
    case gdcm::PixelFormat::UINT32:
        return convert<uint32_t>(bytes, image, picture);
    case gdcm::PixelFormat::INT32:
        return convert<int32_t>(bytes, image, picture);
    case gdcm::PixelFormat::FLOAT32:
        return convert<float>(bytes, image, picture);
    case gdcm::PixelFormat::FLOAT64:
        return convert<double>(bytes, image, picture);
    default:
        throw std::runtime_error("its pixels are of a type that is not read");
    }
}

/* GDCM would fill up what is missing; of a file that ends too early it only warns. */
static bool is_whole(const gdcm::Image &image, const std::string &warnings)
{
    const gdcm::ByteValue *pixels = image.GetDataElement().GetByteValue();
    bool enough = image.GetTransferSyntax().IsEncapsulated() ||
                  (pixels && pixels->GetLength() >= image.GetBufferLength());
    return enough && warnings.find("Incomplete Pixel Data") == std::string::npos;
}

static void read_pixels(const char *path, dicom_picture *picture)
{
    std::ostringstream warnings;
    gdcm::Trace::SetWarningStream(warnings);
    gdcm::Trace::WarningOn();
    gdcm::ImageReader reader;
    gdcm::ImageHelper::SetForceRescaleInterceptSlope(true); /* else of some storage classes alone */
    reader.SetFileName(path);
    bool read = reader.Read();
    gdcm::Trace::WarningOff();
    gdcm::Trace::SetWarningStream(std::cerr);
    if (!read)
        throw std::runtime_error("its pixels cannot be read");
    const gdcm::Image &image = reader.GetImage();
    check_colours(image, picture);
    picture->width = (int)image.GetDimension(0);
    picture->height = (int)image.GetDimension(1);
    picture->frames = image.GetNumberOfDimensions() > 2 ? (int)image.GetDimension(2) : 1;
    double pixels = (double)picture->width * picture->height * picture->frames;
    if (!(pixels > 0 && pixels <= DICOM_MOST_PIXELS))
        throw std::runtime_error("it has no pixels, or more than 64 million");
    if (!is_whole(image, warnings.str()))
        throw std::runtime_error("it has fewer pixels than its header says");
    std::vector<char> bytes(image.GetBufferLength());
    if (!image.GetBuffer(bytes.data()))
        throw std::runtime_error("its pixels cannot be decompressed");
    convert_any(bytes, image, picture);
}

bool resample_dicom_read(const char *path, dicom_picture *picture, char *message,
                         size_t message_bytes)
{
    gdcm::Trace::DebugOff();
    gdcm::Trace::WarningOff();
    gdcm::Trace::ErrorOff();
    try {
        read_header(path, picture);
        read_pixels(path, picture);
        return true;
    } catch (const std::exception &error) {
        snprintf(message, message_bytes, "%s", error.what());
    } catch (...) {
        snprintf(message, message_bytes, "it cannot be read");
    }
    return false;
}
