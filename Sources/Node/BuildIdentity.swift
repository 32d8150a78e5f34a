import Base
import Foundation
import Training

/// What produced a result: the binary's own digest, library versions and the processor's features.
package enum BuildIdentity {
    /// SHA-256 of the running executable.
    package static let code: String = {
        guard let data = FileManager.default.contents(atPath: "/proc/self/exe") else { return "unknown" }
        return Digest.of([UInt8](data)).hex
    }()

    package static let fingerprint: JSON = {
        let cpu =
            FileManager.default.contents(atPath: "/proc/cpuinfo").map { String(decoding: $0, as: UTF8.self) } ?? ""
        func field(_ name: String) -> String {
            cpu.split(separator: "\n").first { $0.hasPrefix(name) }?.split(separator: ":", maxSplits: 1).last
                .map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
        }
        let flags = Set(field("flags").split(separator: " ").map(String.init))
        let relevant = ["avx", "avx2", "avx512f", "fma", "sse4_2"].filter { flags.contains($0) }
        return .object([
            "xgboost": .string(XGBoostTrainer.libraryVersion), "processor": .string(field("model name")),
            "features": .array(relevant.map { .string($0) }),
        ])
    }()
}
