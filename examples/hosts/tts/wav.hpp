// Sound files of one channel and 16 bits.

#ifndef TTS_WAV_HPP
#define TTS_WAV_HPP

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace wav {

inline std::uint32_t number(const std::string &bytes, std::size_t place, std::size_t count) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < count; i++)
        value |= static_cast<std::uint32_t>(static_cast<unsigned char>(bytes.at(place + i))) << (8 * i);
    return value;
}

/// Samples in [-1, 1] of a file of `rate` samples a second.
inline std::vector<float> read(const std::string &path, std::size_t rate) {
    std::ifstream file(path, std::ios::binary);
    std::string bytes;
    for (std::array<char, 4096> block{}; file.read(block.data(), block.size()), file.gcount() > 0;)
        bytes.append(block.data(), static_cast<std::size_t>(file.gcount()));
    if (!file.eof()) throw std::runtime_error(path + " cannot be read");
    if (bytes.size() < 12 || bytes.compare(0, 4, "RIFF") != 0 || bytes.compare(8, 4, "WAVE") != 0)
        throw std::runtime_error(path + " is no WAV file");
    bool known = false;
    for (std::size_t place = 12; place + 8 <= bytes.size();) {
        const std::string name = bytes.substr(place, 4);
        const std::size_t begin = place + 8,
                          size = std::min<std::size_t>(number(bytes, place + 4, 4), bytes.size() - begin);
        if (name == "fmt " && size >= 16) {
            known = number(bytes, begin, 2) == 1 && number(bytes, begin + 2, 2) == 1 &&
                    number(bytes, begin + 14, 2) == 16 && number(bytes, begin + 4, 4) == rate;
        } else if (name == "data" && known) {
            std::vector<float> samples(size / 2);
            for (std::size_t i = 0; i < samples.size(); i++)
                samples[i] = static_cast<float>(static_cast<std::int16_t>(number(bytes, begin + 2 * i, 2))) / 32768;
            return samples;
        }
        place = begin + size + size % 2;
    }
    throw std::runtime_error(path + " is not of one channel, 16 bits and " + std::to_string(rate) +
                             " samples a second");
}

/// A file that grows; its header is right when it is closed.
class writer {
public:
    writer(const std::string &path, std::size_t rate)
        : path_(path), rate_(static_cast<std::uint32_t>(rate)), file_(path, std::ios::binary) {
        header();
        check();
    }

    void write(const std::vector<float> &samples) {
        for (float sample : samples) {
            // It would be silence.
            if (!std::isfinite(sample)) throw std::runtime_error(path_ + " is not written: a sample is no number");
            put(static_cast<std::uint32_t>(std::lround(std::clamp(sample, -1.0f, 1.0f) * 32767)), 2);
        }
        bytes_ += static_cast<std::uint32_t>(2 * samples.size());
        file_.flush();
    }

    void close() {
        file_.seekp(0);
        header();
        file_.close();
        check();
    }

private:
    void check() const {
        if (!file_) throw std::runtime_error(path_ + " cannot be written");
    }

    void put(std::uint32_t value, int count) {
        for (int i = 0; i < count; i++) file_.put(static_cast<char>(value >> (8 * i) & 0xff));
    }

    void header() {
        file_ << "RIFF";
        put(36 + bytes_, 4);
        file_ << "WAVEfmt ";
        put(16, 4);
        put(1, 2);
        put(1, 2);
        put(rate_, 4);
        put(2 * rate_, 4);
        put(2, 2);
        put(16, 2);
        file_ << "data";
        put(bytes_, 4);
    }

    std::string path_;
    std::uint32_t rate_;
    std::ofstream file_;
    std::uint32_t bytes_ = 0;
};

}  // namespace wav

#endif
