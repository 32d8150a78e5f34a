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

    /// Takes from a backup what is damaged here: a log's files only grow and keep their bytes, so the same place of the
    /// same file in a backup of this log holds what stood there. Nothing is believed, and nothing is written before it is
    /// proven: the log is verified as it would be, the chain must lead through the end of the backup to the log's own end, and a
    /// file of which anything would be worse stays as it is. No node may have the log open.
    /// - Throws: `not-a-backup`; `bad-backup` where it is one of another log, or of one that went on differently; `too-much` above
    ///   `Limits.healingBytes`, where a restoration is the better way.
    /// - Parameter dryRun: says what would be healed, and changes nothing.
    package static func heal(
        _ volume: any LogVolume, from backup: any LogVolume, dryRun: Bool = false
    ) throws(EventLogError) -> HealingReport {
        guard let mark = backup.contents(DurableMark.path).flatMap({ DurableMark($0) }) else {
            throw EventLogError(
                "not-a-backup", "there is no backup in \(backup.path): it has no \(DurableMark.path) that can be read")
        }
        let lock = try volume.lock()
        defer { withExtendedLifetime(lock) {} }
        var patches: [String: [FilePatch]] = [:]
        do throws(EventLogError) {
            let (before, _) = try look(volume, mark)
            guard !before.isIntact else {
                guard mark.sequence <= before.end else {
                    throw EventLogError(
                        "bad-backup",
                        "\(backup.path) holds \(mark.sequence) events and this log ends at \(before.end), with nothing damaged before: the rest is in the backup alone; restore it into an empty directory"
                    )
                }
                return HealingReport(verification: before)
            }
            patches = try proven(volume, backup, mark, before)
            return try heal(volume, by: patches, from: before, mark, dryRun)
        } catch {
            // Without its manifest a log says nothing of itself: with the backup's it must be whole.
            guard error.code == "manifest-damaged" else { throw error }
            for name in Manifest.names {
                if let bytes = backup.contents(name) { patches[name] = [FilePatch(at: 0, bytes: bytes)] }
            }
            let overlay = OverlayVolume(volume, patches, replaced: wholes(patches))
            guard !patches.isEmpty, let (found, ends) = try? look(overlay, mark), found.isIntact, ends.theirs == true,
                ends.own != false
            else { throw error }
            return try heal(volume, by: patches, from: nil, mark, dryRun)
        }
    }

    /// Files that are replaced as a whole: they do not only grow.
    private static func wholes(_ patches: [String: [FilePatch]]) -> Set<String> {
        Set(patches.keys.filter { $0.hasSuffix(".ids") || Manifest.names.contains($0) })
    }

    /// What of a backup takes damage away and brings none.
    private static func proven(
        _ volume: any LogVolume, _ backup: any LogVolume, _ mark: DurableMark, _ before: LogVerification
    ) throws(EventLogError) -> [String: [FilePatch]] {
        let (_, endsBefore) = try look(volume, mark)
        var left = Int64(Limits.healingBytes)
        var patches: [String: [FilePatch]] = [:]
        var tried: Set<String> = []
        func fetch(_ complaints: [Complaint], _ more: [String] = []) throws(EventLogError) -> Bool {
            var isNew = false
            for path in Set(complaints.map(\.file) + more).sorted() where !path.isEmpty {
                guard tried.insert(path).inserted else { continue }
                let places = path.hasSuffix(".ids") ? [] : complaints.filter { $0.file == path }.map(\.place)
                patches[path] = try differences(volume, backup, path, places, &left)
                isNew = isNew || patches[path]?.isEmpty == false
            }
            return isNew
        }
        _ = try fetch(before.complaints, try missing(volume, backup))
        // Each round takes a file more, or leaves one out.
        while patches.contains(where: { !$0.value.isEmpty }) {
            let overlay = OverlayVolume(volume, patches, replaced: wholes(patches))
            let (after, ends) = try look(overlay, mark)
            let new = after.complaints.filter { complaint in
                !before.complaints.contains { $0.text == complaint.text || $0.covers(complaint) }
            }
            // What is now read was hidden by the damage before it, and may be sound in the backup as well.
            if try fetch(new) { continue }
            // The own end must be reached wherever it was before; it, or else the backup's end, proves what leads there.
            let isContradicted =
                ends.own == false || ends.theirs == false || (ends.own == nil && endsBefore.own == true)
            let isProven = !isContradicted && (ends.own == true || ends.theirs == true)
            if new.isEmpty, isProven, after.isBetter(than: before) { break }
            guard !new.isEmpty || isProven else {
                throw EventLogError(
                    "bad-backup",
                    "\(backup.path) is no backup of this log as it stands: the chain does not lead through its \(mark.sequence) events to this log's end; nothing was changed"
                )
            }
            let worse = patches.keys.filter { path in new.contains { $0.file == path } }
            for path in worse.isEmpty ? Array(patches.keys) : worse { patches[path] = nil }
        }
        return patches
    }

    /// Files of the backup that belong to this log and are gone from it: nothing that is found may name them.
    private static func missing(_ volume: any LogVolume, _ backup: any LogVolume) throws(EventLogError) -> [String] {
        let manifest = try Manifest.load(volume)
        let present = Set(try volume.list())
        return try backup.list().filter { path in
            guard !present.contains(path) else { return false }
            if path.hasSuffix(".wal"), let first = UInt64(path.dropLast(4)) {
                return first >= manifest?.rewrittenThrough ?? 0
            }
            return manifest?.chains.contains { $0.path == path } ?? false
        }
    }

    private static func heal(
        _ volume: any LogVolume, by patches: [String: [FilePatch]], from before: LogVerification?, _ mark: DurableMark,
        _ dryRun: Bool
    ) throws(EventLogError) -> HealingReport {
        let healed: any LogVolume
        if dryRun {
            healed = OverlayVolume(volume, patches, replaced: wholes(patches))
        } else {
            try write(patches, on: volume)
            healed = volume
        }
        var report = HealingReport(verification: try look(healed, mark).found)
        report.bytes = patches.values.joined().reduce(0) { $0 + Int64($1.bytes.count) }
        let now = Set(report.verification.complaints.map(\.text))
        report.healed =
            before.map { $0.complaints.map(\.text).filter { !now.contains($0) } }
            ?? patches.keys.sorted().map { "\($0) was damaged or missing" }
        return report
    }

    /// What verification finds, and whether the chain reaches the log's own end and the backup's: nil where it cannot be read
    /// there, or where no end is known.
    private static func look(
        _ volume: any LogVolume, _ mark: DurableMark
    ) throws(EventLogError) -> (found: LogVerification, ends: (own: Bool?, theirs: Bool?)) {
        var options = Options()
        options.readOnly = true
        let log = try open(volume, options: options)
        defer { log.close() }
        let found = try log.verify()
        let manifest = log.maintenance.withLock { $0.manifest }
        let segments = log.shared.withLock { $0.segments }
        let theirs = try log.hash(at: mark.sequence, manifest, segments).map { $0 == mark.hash }
        let end = volume.contents(DurableMark.path).flatMap { DurableMark($0) }
        guard let end else { return (found, (nil, theirs)) }
        return (found, (try log.hash(at: end.sequence, manifest, segments).map { $0 == end.hash }, theirs))
    }

    /// Where the two differ within the damaged places, as far as the backup reaches; without a place, in the whole file.
    private static func differences(
        _ volume: any LogVolume, _ backup: any LogVolume, _ path: String, _ places: [Range<Int64>], _ left: inout Int64
    ) throws(EventLogError) -> [FilePatch] {
        guard let theirs = try existing(backup, path) else { return [] }
        let own = try existing(volume, path)
        let whole = own == nil || places.isEmpty || places.contains { $0.isEmpty }
        var patches: [FilePatch] = []
        for place in whole ? [0..<theirs.size] : places {
            for at in stride(
                from: place.lowerBound, to: min(place.upperBound, theirs.size), by: Int64.Stride(blockSize))
            {
                let count = Int(min(Int64(blockSize), place.upperBound - at))
                let there = try theirs.read(at: at, count: count)
                // What is replaced as a whole is taken as a whole.
                if !path.hasSuffix(".ids") {
                    // What the disk does not give of a damaged place is no better than what is wrong there.
                    let here = try? own?.read(at: at, count: there.count)
                    if here == there { continue }
                }
                left -= Int64(there.count)
                guard left >= 0 else {
                    throw EventLogError(
                        "too-much",
                        "more than \(Limits.healingBytes) bytes of \(path) and others differ from \(backup.path); restore the backup into an empty directory instead"
                    )
                }
                patches.append(FilePatch(at: at, bytes: there))
            }
        }
        return patches
    }

    /// nil where there is none; what only cannot be read now is an error.
    private static func existing(_ volume: any LogVolume, _ path: String) throws(EventLogError) -> (any LogFile)? {
        do {
            return try volume.open(path, .read)
        } catch {
            guard error.code == "no-such-file" else { throw error }
            return nil
        }
    }

    private static func write(_ patches: [String: [FilePatch]], on volume: any LogVolume) throws(EventLogError) {
        for (path, list) in patches.sorted(by: { $0.key < $1.key }) where !list.isEmpty {
            if wholes(patches).contains(path) {
                try volume.replace(path, with: list.flatMap(\.bytes), durable: true)
                continue
            }
            let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
            if !directory.isEmpty { try volume.makeDirectory(directory) }
            // First goes what was derived from a segment while a part of it could not be read.
            if path.hasSuffix(".wal") {
                let present = Set(try volume.list())
                for end in [".index", ".ids"] where present.contains(path.dropLast(4) + end) {
                    try volume.remove(path.dropLast(4) + end)
                }
                try volume.syncDirectory(directory)
            }
            let file = try volume.open(path, .create)
            for patch in list { try file.write(patch.bytes, at: patch.at) }
            try file.sync()
            try volume.syncDirectory(directory)
        }
    }
}

/// Something that verification finds: in which file, at which bytes and of which events, as far as that is known.
private struct Complaint {
    let file: String
    let place: Range<Int64>
    let sequences: Range<UInt64>
    let text: String

    /// Whether it is what is left of this one.
    func covers(_ other: Complaint) -> Bool {
        !other.sequences.isEmpty && sequences.lowerBound <= other.sequences.lowerBound
            && other.sequences.upperBound <= sequences.upperBound
    }
}

extension LogVerification {
    fileprivate var complaints: [Complaint] {
        damaged.map {
            Complaint(
                file: $0.file, place: min($0.from, $0.to)..<max($0.from, $0.to), sequences: $0.sequences,
                text: $0.description)
        }
            + rewritten.map {
                Complaint(
                    file: $0.file, place: 0..<0, sequences: 0..<0,
                    text: "\($0.file): events \($0.sequences) were rewritten")
            }
            + lostIdentifiers.map { Complaint(file: $0.file, place: 0..<0, sequences: 0..<0, text: $0.description) }
    }

    /// Fewer complaints, or the same of fewer events.
    fileprivate func isBetter(than other: LogVerification) -> Bool {
        let (own, others) = (complaints, other.complaints)
        func events(_ list: [Complaint]) -> Int { list.reduce(0) { $0 + $1.sequences.count } }
        return own.count < others.count || (own.count == others.count && events(own) < events(others))
    }

    /// The sequence behind the last event that there is.
    fileprivate var end: UInt64 { reached }
}
