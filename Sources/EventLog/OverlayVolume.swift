/// Bytes that would take the place of others in a file.
struct FilePatch {
    let at: Int64
    let bytes: [UInt8]

    var end: Int64 { at + Int64(bytes.count) }
}

/// A volume as it would be with some bytes replaced: it can be looked at, and nothing is written.
final class OverlayVolume: LogVolume {
    private let base: any LogVolume
    private let patches: [String: [FilePatch]]
    /// Files of which nothing is left but the patch.
    private let replaced: Set<String>

    init(_ base: any LogVolume, _ patches: [String: [FilePatch]], replaced: Set<String>) {
        self.base = base
        self.replaced = replaced
        self.patches = patches.filter { !$0.value.isEmpty }
    }

    var path: String { base.path }

    func list() throws(EventLogError) -> [String] { Set(try base.list()).union(patches.keys).sorted() }

    func open(_ path: String, _ mode: LogFileMode) throws(EventLogError) -> any LogFile {
        guard mode == .read else { throw refusal(path) }
        guard let own = patches[path] else { return try base.open(path, .read) }
        var file: (any LogFile)?
        do throws(EventLogError) {
            if !replaced.contains(path) { file = try base.open(path, .read) }
        } catch {
            guard error.code == "no-such-file" else { throw error }
        }
        return OverlayFile(path: base.path + "/" + path, base: file, patches: own)
    }

    private func refusal(_ path: String) -> EventLogError {
        EventLogError("read-only", "\(base.path)/\(path) is only looked at", fault: .headrace)
    }

    func remove(_ path: String) throws(EventLogError) { throw refusal(path) }
    func rename(_ from: String, _ to: String) throws(EventLogError) { throw refusal(from) }
    func makeDirectory(_ path: String) throws(EventLogError) { throw refusal(path) }
    func syncDirectory(_ path: String) throws(EventLogError) { throw refusal(path) }
    func lock() throws(EventLogError) -> any Sendable { throw refusal("LOCK") }
}

private final class OverlayFile: LogFile {
    let path: String
    private let base: (any LogFile)?
    private let patches: [FilePatch]

    init(path: String, base: (any LogFile)?, patches: [FilePatch]) {
        self.path = path
        self.base = base
        self.patches = patches
    }

    var size: Int64 { patches.map(\.end).reduce(base?.size ?? 0, max) }

    func read(at offset: Int64, count: Int) throws(EventLogError) -> [UInt8] {
        let end = min(size, offset + Int64(count))
        guard end > offset else { return [] }
        let over = patches.filter { $0.at < end && $0.end > offset }
        var bytes: [UInt8] = []
        // What is replaced as a whole need not be readable.
        if !over.contains(where: { $0.at <= offset && $0.end >= end }) {
            bytes = try base?.read(at: offset, count: Int(end - offset)) ?? []
        }
        bytes += [UInt8](repeating: 0, count: max(0, Int(end - offset) - bytes.count))
        for patch in over {
            let from = max(patch.at, offset)
            let to = min(patch.end, end)
            let place = Int(from - offset)..<Int(to - offset)
            bytes.replaceSubrange(place, with: patch.bytes[Int(from - patch.at)..<Int(to - patch.at)])
        }
        return bytes
    }

    private var refusal: EventLogError { EventLogError("read-only", "\(path) is only looked at", fault: .headrace) }
    func write(_ bytes: [UInt8], at offset: Int64) throws(EventLogError) { throw refusal }
    func sync() throws(EventLogError) { throw refusal }
    func truncate(to size: Int64) throws(EventLogError) { throw refusal }
    func reserve(_ range: Range<Int64>) -> Bool { false }
}
