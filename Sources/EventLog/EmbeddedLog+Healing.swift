import Base

/// What a backup gave back to a damaged log.
package struct HealingReport: Sendable {
    /// Damage that is gone.
    package var healed: [String] = []
    /// Bytes that were taken from the backup.
    package var bytes: Int64 = 0
    /// What is found now.
    package var verification: LogVerification
}

extension EmbeddedLog {
    /// Bytes compared at once.
    private static let blockSize = 1 << 20

    /// Bytes that stood in a file, and what takes their place.
    private struct Patch {
        let path: String
        let at: Int64
        let own: [UInt8]
        let theirs: [UInt8]
    }

    /// Takes from a backup what is damaged here: a log's files only grow and keep their bytes, so the same place of the
    /// same file in a backup of this log holds what stood there. Nothing is believed: the chain and every digest are checked
    /// again, and a file that is no better for it gets its own bytes back. A crash on the way leaves damage where there was
    /// damage, and the next attempt begins again. No node may have the log open.
    /// - Throws: `not-a-backup`; `too-much` above `Limits.healingBytes`, where a restoration is the better way.
    package static func heal(
        _ volume: any LogVolume, from backup: any LogVolume
    ) throws(EventLogError) -> HealingReport {
        guard backup.contents(DurableMark.path).flatMap({ DurableMark($0) }) != nil else {
            throw EventLogError(
                "not-a-backup", "there is no backup in \(backup.path): it has no \(DurableMark.path) that can be read")
        }
        let lock = try volume.lock()
        defer { withExtendedLifetime(lock) {} }
        let before = try look(volume)
        guard !before.isIntact else { return HealingReport(verification: before) }
        var patches: [Patch] = []
        var sizes: [String: Int64] = [:]
        var left = Int64(Limits.healingBytes)
        for path in Set(complaints(before).map(\.file)).sorted() where !path.isEmpty {
            sizes[path] = (try? volume.open(path, .read))?.size
            patches += try differences(volume, backup, path, &left)
        }
        try write(patches, on: volume) { $0.theirs }
        var report = HealingReport(verification: try look(volume))
        let worse = Set(patches.map(\.path)).filter { path in
            complaints(report.verification).count { $0.file == path } >= complaints(before).count { $0.file == path }
        }
        if !worse.isEmpty {
            try write(patches.filter { worse.contains($0.path) }, on: volume) { $0.own }
            for path in worse.sorted() {
                guard let size = sizes[path] else {
                    try volume.remove(path)
                    continue
                }
                try volume.open(path, .write).truncate(to: size)
            }
            report.verification = try look(volume)
        }
        report.bytes = patches.reduce(0) { $0 + (worse.contains($1.path) ? 0 : Int64($1.theirs.count)) }
        let now = Set(complaints(report.verification).map(\.text))
        report.healed = complaints(before).map(\.text).filter { !now.contains($0) }
        return report
    }

    private static func look(_ volume: any LogVolume) throws(EventLogError) -> LogVerification {
        var options = Options()
        options.readOnly = true
        let log = try open(volume, options: options)
        defer { log.close() }
        return try log.verify()
    }

    private static func complaints(_ found: LogVerification) -> [(file: String, text: String)] {
        found.damaged.map { ($0.file, $0.description) }
            + found.rewritten.map { ($0.file, "\($0.file): events \($0.sequences) were rewritten") }
    }

    /// Where the two differ, as far as both reach; a file that is shorter here, or gone, gets the rest of it.
    private static func differences(
        _ volume: any LogVolume, _ backup: any LogVolume, _ path: String, _ left: inout Int64
    ) throws(EventLogError) -> [Patch] {
        guard let theirs = try? backup.open(path, .read) else { return [] }
        let own = try? volume.open(path, .read)
        var patches: [Patch] = []
        for at in stride(from: 0, to: theirs.size, by: Int64.Stride(blockSize)) {
            let there = try theirs.read(at: at, count: blockSize)
            // What the disk does not give is taken for different.
            let here = (try? own?.read(at: at, count: there.count)) ?? []
            guard here != there else { continue }
            left -= Int64(there.count)
            guard left >= 0 else {
                throw EventLogError(
                    "too-much",
                    "more than \(Limits.healingBytes) bytes of \(path) and others differ from \(backup.path); restore the backup into an empty directory instead"
                )
            }
            patches.append(Patch(path: path, at: at, own: here, theirs: there))
        }
        return patches
    }

    private static func write(
        _ patches: [Patch], on volume: any LogVolume, _ bytes: (Patch) -> [UInt8]
    ) throws(EventLogError) {
        for path in Set(patches.map(\.path)).sorted() {
            if let slash = path.lastIndex(of: "/") { try volume.makeDirectory(String(path[..<slash])) }
            let file = try volume.open(path, .create)
            for patch in patches where patch.path == path { try file.write(bytes(patch), at: patch.at) }
            try file.sync()
        }
    }
}
