// Text to speech on ONNX Runtime, its flow solved by Euler steps or by a theta.
//
//     tts say VOICE SOLVER PROMPT.wav "ITS TEXT" "TEXT" OUT.wav     SOLVER: euler@5, zipvoice@5, LADDER.json@5
//     tts compare VOICE LADDER.json TEXTS NFE...
//
// VOICE is the folder of the graphs. `say` writes the speech as it comes, chunk by chunk. `compare` prints a table for the
// texts, one a line of TEXTS, each after one of the prompts of the voice.

#include <chrono>
#include <cstdio>
#include <ctime>
#include <exception>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "solvers.hpp"
#include "voice.hpp"
#include "wav.hpp"

namespace {

/// Frames of a chunk, of what it follows that it is conditioned on, and those of both that are blended.
constexpr std::size_t chunk_frames = 64, context_frames = 40, blended_frames = 8;
/// Of one solve: memory grows with their square.
constexpr std::size_t most_frames = 4000;
constexpr float guidance_scale = 2;
constexpr std::uint64_t seed = 7;
/// Of the reference: a classical Runge-Kutta method.
constexpr unsigned exact_evaluations = 128;

using solver = std::function<void(flow &, std::vector<float> &)>;

double seconds_since(std::chrono::steady_clock::time_point begun) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

/// A number of evaluations; `text` is what it is part of.
unsigned evaluations_of(const std::string &digits, const std::string &text) {
    const bool number =
        !digits.empty() && digits.size() <= 4 && digits.find_first_not_of("0123456789") == std::string::npos;
    const int nfe = number ? std::stoi(digits) : 0;
    if (nfe < 1 || nfe > 1000) throw std::invalid_argument(text + ": evaluations are 1 to 1000");
    return static_cast<unsigned>(nfe);
}

/// euler@NFE and zipvoice@NFE are the engine's loops; all else is a solver as everywhere in this library.
solver solver_of(const std::string &text) {
    const std::size_t at = text.rfind('@');
    const std::string name = text.substr(0, at);
    if (name == "euler" || name == "zipvoice") {
        const unsigned nfe = at == std::string::npos ? 5 : evaluations_of(text.substr(at + 1), text);
        return euler(nfe, name == "euler" ? 1.0f : 0.5f);
    }
    const std::vector<std::string> files =
        std::ifstream(name) ? std::vector<std::string>{name} : std::vector<std::string>{};
    const auto found = bespoke::reference::parse(text, files);
    if (found.kind == BESPOKE_REFERENCE_GROUND_TRUTH)
        throw std::invalid_argument("gt is not among the solvers of this program");
    bespoke::theta theta = found.kind == BESPOKE_REFERENCE_FILE
                               ? bespoke::ladder::load(name).best(found.nfe.value_or(1000))
                               : bespoke::theta::solver(found.name, found.nfe.value_or(5), "fm-ot");
    return
        [solve = std::make_shared<learned>(std::move(theta))](flow &flow, std::vector<float> &x) { (*solve)(flow, x); };
}

/// The features of `text`, of which those in `known` are given: all of them.
frames made(const voice &voice, const solver &solve, const frames &text, const frames &known, std::uint64_t noise) {
    frames speech = known;
    speech.values.resize(text.count() * voice::bands);
    flow flow(voice, text, speech, guidance_scale);
    std::vector<float> x(speech.values.size());
    const auto shape = flow.shape(voice::bands);
    bespoke::noise(seed, noise, bespoke::tensor_view<float>(x.data(), shape.data(), shape.size()));
    solve(flow, x);
    return {voice::bands, std::move(x)};
}

/// Speech in chunks: each is made after the last frames of the one before, and blended with its end.
class stream {
public:
    stream(const voice &voice, const solver &solve, const std::vector<float> &prompt, const std::string &said)
        : voice_(voice),
          solve_(solve),
          speech_(voice.features(prompt)),
          text_(voice.text_condition(said, speech_.count())) {}

    void say(const std::string &text, const std::function<void(const std::vector<float> &)> &hear) {
        const frames all = voice_.text_condition(text);
        for (std::size_t first = 0; first < all.count();) {
            // No chunk is shorter than half of one, but for a text that is.
            const std::size_t left = all.count() - first;
            const std::size_t next = left < chunk_frames * 3 / 2 ? all.count() : first + chunk_frames;
            hear(chunk(all.slice(first, next)));
            first = next;
        }
        hear(tail_);
    }

private:
    std::vector<float> chunk(const frames &text) {
        const frames known = speech_.last(context_frames);
        text_ = text_.last(context_frames);
        text_.append(text);
        const frames found = made(voice_, solve_, text_, known, chunks_);
        const frames fresh = found.slice(known.count(), found.count());
        frames heard = known.last(blended_frames);
        heard.append(fresh);
        speech_ = known;
        speech_.append(fresh);
        return blended(voice_.samples(heard), (heard.count() - fresh.count()) * voice_.hop());
    }

    /// The first `over` samples say once more what the chunk before ended with. The end of this one is kept back.
    std::vector<float> blended(std::vector<float> samples, std::size_t over) {
        if (chunks_++ == 0) samples.erase(samples.begin(), samples.begin() + static_cast<std::ptrdiff_t>(over));
        for (std::size_t i = 0; i < tail_.size(); i++) {
            const float share = static_cast<float>(i) / static_cast<float>(tail_.size());
            samples[i] = share * samples[i] + (1 - share) * tail_[i];
        }
        const std::size_t kept = std::min(samples.size(), blended_frames * voice_.hop());
        tail_.assign(samples.end() - static_cast<std::ptrdiff_t>(kept), samples.end());
        samples.resize(samples.size() - kept);
        return samples;
    }

    const voice &voice_;
    const solver &solve_;
    frames speech_, text_;
    std::vector<float> tail_;
    std::uint64_t chunks_ = 0;
};

void say(const voice &voice, const std::string &solver_name, const std::string &prompt, const std::string &said,
         const std::string &text, const std::string &out) {
    const solver solve = solver_of(solver_name);
    stream stream(voice, solve, wav::read(prompt, voice.rate()), said);
    wav::writer file(out, voice.rate());
    const auto begun = std::chrono::steady_clock::now();
    std::size_t heard = 0;
    stream.say(text, [&](const std::vector<float> &samples) {
        file.write(samples);
        heard += samples.size();
        std::printf("%6.3f s of speech after %.3f s\n", static_cast<double>(heard) / static_cast<double>(voice.rate()),
                    seconds_since(begun));
    });
    file.close();
}

struct request {
    frames text, known;
};

std::vector<std::string> lines_of(const std::string &path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error(path + " cannot be read");
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);)
        if (!line.empty()) lines.push_back(line);
    return lines;
}

/// Each text after a prompt of the voice, whose lines are the name of a file, a tab, and what is said in it.
std::vector<request> requests(const voice &voice, const std::string &folder, const std::string &texts) {
    const auto prompts = lines_of(folder + "/prompts.txt");
    if (prompts.empty()) throw std::runtime_error(folder + "/prompts.txt names no recording");
    std::vector<request> all;
    for (const std::string &text : lines_of(texts)) {
        const std::string &prompt = prompts.at(all.size() % prompts.size());
        const std::size_t tab = prompt.find('\t');
        frames known = voice.features(wav::read(folder + "/" + prompt.substr(0, tab), voice.rate()));
        frames said = voice.text_condition(prompt.substr(tab + 1), known.count());
        said.append(voice.text_condition(text));
        if (said.count() > most_frames)
            throw std::runtime_error(texts + ": text " + std::to_string(all.size() + 1) + " takes " +
                                     std::to_string(said.count()) + " frames with its prompt, expected " +
                                     std::to_string(most_frames) + " at most");
        all.push_back({std::move(said), std::move(known)});
    }
    if (all.empty()) throw std::runtime_error(texts + " has no text");
    return all;
}

double rmse(const frames &a, const frames &b) {
    double squares = 0;
    for (std::size_t i = 0; i < a.values.size(); i++) squares += std::pow(a.values[i] - b.values[i], 2);
    return std::sqrt(squares / static_cast<double>(a.values.size()));
}

/// What of the found features was not given.
frames fresh(const request &request, const frames &found) { return found.slice(request.known.count(), found.count()); }

std::vector<frames> solved(const voice &voice, const std::vector<request> &requests, const solver &solve) {
    std::vector<frames> found;
    found.reserve(requests.size());
    for (std::size_t i = 0; i < requests.size(); i++)
        found.push_back(fresh(requests[i], made(voice, solve, requests[i].text, requests[i].known, i)));
    return found;
}

/// Of ladder.json@8 the nfe is at most 8: a solver of fewer evaluations is not compared.
std::vector<std::string> rivals(const std::string &ladder, unsigned nfe) {
    const std::string at = "@" + std::to_string(nfe);
    std::vector<std::string> names{"zipvoice" + at, "euler" + at, "ab2" + at, "dpm++2m" + at};
    if (nfe % 2 == 0) names.push_back("midpoint" + at);
    if (bespoke::ladder::load(ladder).best(nfe).nfe() == nfe) names.push_back(ladder + at);
    return names;
}

void compare(const voice &voice, const std::string &folder, const std::string &ladder, const std::string &texts,
             const std::vector<unsigned> &nfes) {
    const auto asked = requests(voice, folder, texts);
    const auto truth = solved(voice, asked, solver_of("rk4@" + std::to_string(exact_evaluations)));
    double speech = 0;
    for (const frames &one : truth) speech += voice.seconds(one.count());
    std::printf(
        "%zu texts, %.1f s of speech\n\n| evaluations | solver | rmse | real-time factor |\n| --- | --- | --- | --- "
        "|\n",
        asked.size(), speech);
    for (const unsigned nfe : nfes)
        for (const std::string &name : rivals(ladder, nfe)) {
            const solver solve = solver_of(name);
            const std::clock_t begun = std::clock();
            const auto found = solved(voice, asked, solve);
            // Of one thread: what a core takes, also beside other work.
            const double taken = static_cast<double>(std::clock() - begun) / CLOCKS_PER_SEC;
            double sum = 0;
            for (std::size_t i = 0; i < found.size(); i++) sum += rmse(found[i], truth[i]);
            const std::string shown = name.find(ladder) == 0 ? "theta" : name.substr(0, name.rfind('@'));
            std::printf("| %u | %s | %.4f | %.4f |\n", nfe, shown.c_str(), sum / static_cast<double>(found.size()),
                        taken / speech);
        }
}

}  // namespace

int main(int count, char *const *arguments) try {
    const std::vector<std::string> given(arguments + 1, arguments + count);
    if (given.size() == 7 && given[0] == "say") {
        say(voice(given[1]), given[2], given[3], given[4], given[5], given[6]);
    } else if (given.size() >= 5 && given[0] == "compare") {
        std::vector<unsigned> nfes;
        for (std::size_t i = 4; i < given.size(); i++) nfes.push_back(evaluations_of(given[i], given[i]));
        compare(voice(given[1]), given[1], given[2], given[3], nfes);
    } else {
        std::fprintf(stderr,
                     "usage: tts say VOICE SOLVER PROMPT.wav \"ITS TEXT\" \"TEXT\" OUT.wav\n"
                     "       tts compare VOICE LADDER.json TEXTS NFE...\n");
        return 2;
    }
    return 0;
} catch (const std::exception &failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
}
