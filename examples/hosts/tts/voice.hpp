// The four graphs of a voice, as sherpa-onnx has them for ZipVoice: text, flow, and from and to samples.

#ifndef TTS_VOICE_HPP
#define TTS_VOICE_HPP

#include <cctype>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "onnx.hpp"

/// Rows of `width` numbers, one for each frame.
struct frames {
    std::size_t width;
    std::vector<float> values;

    std::size_t count() const { return values.size() / width; }
    /// Frames first, first + 1, ... up to `last`, which is none of them.
    frames slice(std::size_t first, std::size_t last) const {
        const auto begin = values.begin();
        return {
            width,
            {begin + static_cast<std::ptrdiff_t>(first * width), begin + static_cast<std::ptrdiff_t>(last * width)}};
    }
    frames last(std::size_t most) const { return slice(count() - std::min(count(), most), count()); }
    void append(const frames &more) { values.insert(values.end(), more.values.begin(), more.values.end()); }
};

class voice {
public:
    static constexpr std::size_t bands = 80, text_width = 48;

    explicit voice(const std::string &folder)
        : encoder_(folder + "/encoder.onnx"),
          decoder_(folder + "/decoder.onnx"),
          features_(folder + "/features.onnx"),
          vocoder_(folder + "/vocoder.onnx"),
          alphabet_(encoder_.metadata("alphabet")),
          frames_per_token_(encoder_.number("frames_per_token")),
          rate_(static_cast<std::size_t>(encoder_.number("rate"))),
          hop_(static_cast<std::size_t>(encoder_.number("hop"))) {}

    const onnx::session &decoder() const { return decoder_; }
    /// Samples a second, and samples a frame.
    std::size_t rate() const { return rate_; }
    std::size_t hop() const { return hop_; }
    double seconds(std::size_t frames) const { return static_cast<double>(frames * hop_) / static_cast<double>(rate_); }

    /// The text of each frame: `count` of them, or as many as such a text usually takes where it is 0.
    frames text_condition(const std::string &text, std::size_t count = 0) const {
        const std::vector<std::int64_t> tokens = tokens_of(text);
        if (tokens.empty())
            throw std::runtime_error("nothing in \"" + text + "\" can be said: it has none of \"" + alphabet_ + "\"");
        const auto characters = static_cast<std::int64_t>(tokens.size());
        if (count == 0)
            count = static_cast<std::size_t>(std::ceil(frames_per_token_ * static_cast<double>(characters)));
        const auto length = static_cast<std::int64_t>(count);
        const auto given = onnx::borrowed(tokens.data(), {1, characters});
        const auto asked = onnx::borrowed(&length, {1});
        return {text_width,
                onnx::numbers(*encoder_.run({{"tokens", given.get()}, {"frames", asked.get()}}, "text_condition"))};
    }

    frames features(const std::vector<float> &samples) const {
        const std::size_t whole = samples.size() / hop_ * hop_;
        if (whole == 0)
            throw std::runtime_error("a recording of less than one frame, " + std::to_string(hop_) + " samples");
        const auto given = onnx::borrowed(samples.data(), {1, static_cast<std::int64_t>(whole)});
        return {bands, onnx::numbers(*features_.run({{"samples", given.get()}}, "features"))};
    }

    std::vector<float> samples(const frames &features) const {
        const auto count = static_cast<std::int64_t>(features.count());
        const auto given = onnx::borrowed(features.values.data(), {1, count, static_cast<std::int64_t>(bands)});
        return onnx::numbers(*vocoder_.run({{"features", given.get()}}, "samples"));
    }

private:
    std::vector<std::int64_t> tokens_of(const std::string &text) const {
        std::vector<std::int64_t> tokens;
        for (const char character : text) {
            const auto lower = static_cast<char>(std::tolower(static_cast<unsigned char>(character)));
            const std::size_t found = alphabet_.find(lower);
            if (found != std::string::npos) tokens.push_back(static_cast<std::int64_t>(found) + 1);
        }
        return tokens;
    }

    onnx::session encoder_, decoder_, features_, vocoder_;
    std::string alphabet_;
    double frames_per_token_;
    std::size_t rate_, hop_;
};

/// The flow of one solve: what stays the same at every evaluation is given once.
class flow {
public:
    /// Text and speech of each frame; frames of zeros in `speech` are those to be made.
    flow(const voice &voice, frames text, frames speech, float guidance_scale)
        : decoder_(voice.decoder()), text_(std::move(text)), speech_(std::move(speech)), scale_(guidance_scale) {
        if (text_.count() != speech_.count())
            throw std::invalid_argument("flow: text of " + std::to_string(text_.count()) + " frames, speech of " +
                                        std::to_string(speech_.count()));
        text_tensor_ = onnx::borrowed(text_.values.data(), shape(voice::text_width));
        speech_tensor_ = onnx::borrowed(speech_.values.data(), shape(voice::bands));
        scale_tensor_ = onnx::borrowed(&scale_, {1});
    }
    flow(const flow &) = delete;
    flow &operator=(const flow &) = delete;

    std::vector<std::int64_t> shape(std::size_t width) const {
        return {1, static_cast<std::int64_t>(text_.count()), static_cast<std::int64_t>(width)};
    }

    /// u = the velocity of x at t, both of one sample.
    void velocity(const float *t, const float *x, float *u) {
        evaluations_++;
        const auto time = onnx::borrowed(t, {1});
        const auto state = onnx::borrowed(x, shape(voice::bands));
        decoder_.run({{"t", time.get()},
                      {"x", state.get()},
                      {"text_condition", text_tensor_.get()},
                      {"speech_condition", speech_tensor_.get()},
                      {"guidance_scale", scale_tensor_.get()}},
                     "v", onnx::borrowed(u, shape(voice::bands)));
    }

    unsigned evaluations() const { return evaluations_; }

private:
    const onnx::session &decoder_;
    const frames text_, speech_;
    const float scale_;
    onnx::value text_tensor_, speech_tensor_, scale_tensor_;
    unsigned evaluations_ = 0;
};

#endif
