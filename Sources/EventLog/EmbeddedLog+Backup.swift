import Base
import RecordFormat

/// What a backup or a restoration did.
package struct BackupReport: Sendable {
    package var files = 0
    /// Bytes that were not there yet.
    package var copiedBytes: Int64 = 0
    package var totalBytes: Int64 = 0
    /// Events below this sequence are in it.
    package var events: UInt64 = 0
    /// Damage that is known, and rotten batches in what was copied now; `verify` looks for more.
    package var damaged: [DamagedRange] = []
    /// Damage that earlier backups brought to the same place, in files that are still in it: they are not copied again.
    package var earlier: [String] = []
    /// Files of ids that the backup has and this log only in part; they were left as they are.
    package var keptIdentifiers: [String] = []
}

extension EmbeddedLog {
    /// Bytes copied at once.
    private static let copySize = 1 << 20

    /// Copies the log as it is at one moment, while it goes on. A second backup to the same place copies only what is new;
    /// until it is done, the first one stays what it was.
    package func backup(to target: any LogVolume) throws(EventLogError) -> BackupReport {
        try target.makeDirectory("")
        let lock = try target.lock()
        defer { withExtendedLifetime(lock) {} }
        // Nothing moves meanwhile; appends go on behind the end that is copied.
        return try upkeep.withLock { _ throws(EventLogError) in
            let manifest = maintenance.withLock { $0.manifest }
            let (segments, damaged, mark) = shared.withLock { state in
                (
                    state.segments, state.damaged,
                    DurableMark(
                        segment: state.segments.last?.firstSequence ?? 0, end: state.segments.last?.end ?? 0,
                        sequence: state.durableSequence, hash: state.lastHash)
                )
            }
            let present = Set(try target.list())
            try refuseForeign(target, present, manifest, segments, mark)
            var report = BackupReport()
            report.events = mark.sequence
            report.damaged = damaged
            var wanted: [(path: String, bytes: Int64, partition: TopicPartition?, end: Int64)] = []
            for partition in manifest.partitions {
                for file in partition.files {
                    wanted.append((file.path(partition.partition), file.bytes, partition.partition, file.end))
                }
                if !partition.files.isEmpty { try target.makeDirectory(Manifest.directory(partition.partition)) }
            }
            for chain in manifest.chains {
                wanted.append((chain.path, chain.bytes, nil, 0))
            }
            for segment in segments { wanted.append((segment.path, segment.end, nil, 0)) }
            var found: [DamagedRange] = []
            for (path, bytes, partition, end) in wanted {
                let exists = present.contains(path)
                let copied = try copy(path, bytes, of: partition, before: end, to: target, exists: exists)
                report.copiedBytes += copied.bytes
                var rotten = copied.damaged
                if copied.bytes > 0, path.hasSuffix(".wal") {
                    rotten += try Self.damage(inSegment: path, end: bytes, on: target)
                }
                if copied.bytes > 0, let chain = manifest.chains.first(where: { $0.path == path }) {
                    rotten += try Self.damage(in: chain, on: target)
                }
                found += rotten
                // At once: what is there is not looked at again, also after a backup that was broken off.
                if !rotten.isEmpty { try remember(rotten, on: target) }
                report.totalBytes += bytes
                report.files += 1
            }
            let indexes = try copyIndexes(manifest, to: target)
            let kept = Set(wanted.map(\.path))
            let told = Set((report.damaged + found).map(\.description))
            report.earlier = try remembered(on: target, keep: kept).filter { !told.contains($0) }
            report.damaged += found.filter { !report.damaged.contains($0) }
            try copyIdentifiers(to: target, &report)
            try finish(manifest, mark, on: target, keep: indexes.union(wanted.map(\.path)))
            return report
        }
    }

    private func copyIdentifiers(to target: any LogVolume, _ report: inout BackupReport) throws(EventLogError) {
        // Ids cannot always be had from the rest: events may be trimmed by then. They are small and replaced whole.
        for path in try volume.list() where path.hasSuffix(".ids") {
            let file = try volume.open(path, .read)
            let bytes = try file.read(at: 0, count: Int(file.size))
            if Self.knowsMore(target, path, than: bytes) {
                // The only ones that still know what was lost here.
                report.keptIdentifiers.append(path)
            } else if target.contents(path) != bytes {
                try target.replace(path, with: bytes, durable: true)
                report.copiedBytes += Int64(bytes.count)
            }
            report.totalBytes += Int64(bytes.count)
            report.files += 1
        }
    }

    /// Name of the file in which a backup says what of it is damaged, a line each.
    private static let damagePath = "damage"

    /// Keeps beside a backup what is damaged in it.
    private func remember(_ damaged: [DamagedRange], on target: any LogVolume) throws(EventLogError) {
        let known = lines(target)
        let new = damaged.map(\.description).filter { !known.contains($0) }
        guard !new.isEmpty else { return }
        try target.replace(Self.damagePath, with: [UInt8]((known + new).joined(separator: "\n").utf8), durable: true)
    }

    /// What was found damaged in files that are still in the backup.
    private func remembered(on target: any LogVolume, keep: Set<String>) throws(EventLogError) -> [String] {
        let known = lines(target)
        let left = known.filter { keep.contains($0.split(separator: " ").first.map { String($0) } ?? "") }
        if left.count < known.count {
            try target.replace(Self.damagePath, with: [UInt8](left.joined(separator: "\n").utf8), durable: true)
        }
        return left
    }

    private func lines(_ target: any LogVolume) -> [String] {
        String(decoding: target.contents(Self.damagePath) ?? [], as: UTF8.self).split(separator: "\n").map {
            String($0)
        }
    }

    /// Whether a file of ids there is whole and holds more than one here.
    private static func knowsMore(_ target: any LogVolume, _ path: String, than bytes: [UInt8]) -> Bool {
        let condition = IdentifierFile.condition(target, path)
        guard condition != .unreadable else { return true }
        guard condition == .whole, let there = IdentifierFile.load(target, path).file else { return false }
        guard let here = IdentifierFile(.bytes(bytes)), here.entries() != nil else { return true }
        return there.firstSequence == here.firstSequence && there.endSequence == here.endSequence
            && there.count > here.count
    }

    /// A backup of another log would be overwritten file by file: what is there must be a beginning of this one.
    private func refuseForeign(
        _ target: any LogVolume, _ present: Set<String>, _ manifest: Manifest, _ segments: [Segment], _ own: DurableMark
    ) throws(EventLogError) {
        guard present.contains(where: { $0 != "LOCK" && $0 != DurableMark.path }) else { return }
        guard let mark = target.contents(DurableMark.path).flatMap({ DurableMark($0) }) else {
            // The first one may have been broken off before its end: then there are files of a log and nothing else.
            let parts = [".wal", ".chain", ".log", ".index", ".ids", ".tmp"]
            guard
                present.allSatisfy({ name in
                    ["LOCK", Self.damagePath].contains(name) || parts.contains { name.hasSuffix($0) }
                }),
                !present.contains(where: { $0.hasSuffix(".wal") || $0.hasSuffix(".chain") })
            else {
                throw EventLogError(
                    "bad-backup", "\(target.path) is not empty and holds no backup; take an empty directory")
            }
            return
        }
        guard mark.sequence <= own.sequence else {
            throw EventLogError(
                "bad-backup", "\(target.path) holds a log that is longer than this one; take an empty directory")
        }
        let known = mark.sequence == own.sequence ? own.hash : try hash(at: mark.sequence, manifest, segments)
        guard known == mark.hash else {
            let why = known == nil ? "whose end is damaged here, or no longer kept" : "that went on differently"
            throw EventLogError(
                "bad-backup",
                "\(target.path) holds a log of \(mark.sequence) events \(why): writing this one over it would ruin it; take an empty directory"
            )
        }
        if let known = try Manifest.load(target), known.generation > manifest.generation {
            throw EventLogError(
                "bad-backup", "\(target.path) holds a newer state of this log, or another log; take an empty directory")
        }
    }

    /// The hash of the append that ends at a sequence; nil where none does, or it cannot be read any more.
    func hash(
        at sequence: UInt64, _ manifest: Manifest, _ segments: [Segment]
    ) throws(EventLogError) -> Digest? {
        if sequence == 0 { return .zero }
        if sequence == manifest.rewrittenThrough { return manifest.rewrittenHash }
        if let chain = manifest.chains.first(where: { $0.firstSequence < sequence && sequence <= $0.endSequence }) {
            guard let envelopes = try? ChainFile.load(volume, chain) else { return nil }
            return envelopes.first { $0.description.endSequence == sequence }?.hash
        }
        guard let segment = segments.last(where: { $0.firstSequence < sequence }) else { return nil }
        var walker = FrameWalker(file: segment.file, offset: 0, end: segment.end)
        while let step = try walker.next() {
            switch step {
            case .frame(let frame, _, let bytes):
                guard frame.endSequence >= sequence else { continue }
                guard frame.endSequence == sequence else { return nil }
                return bytes.withUnsafeBytes {
                    Digest.of(UnsafeRawBufferPointer(rebasing: $0[..<frame.envelopeSize]))
                }
            case .damage(_, let resume): walker.offset = resume?.at ?? segment.end
            }
        }
        return nil
    }

    /// Indexes are small and replaced whole; those that are missing here are built where they are needed.
    private func copyIndexes(_ manifest: Manifest, to target: any LogVolume) throws(EventLogError) -> Set<String> {
        var indexes: Set<String> = []
        for partition in manifest.partitions {
            for record in partition.files {
                let file = PartitionFile(partition.partition, record, cache)
                let path = PartitionFile.indexPath(file.path)
                guard file.hasIndex, let index = volume.contents(path) else { continue }
                indexes.insert(path)
                if target.contents(path) != index { try target.replace(path, with: index, durable: false) }
            }
        }
        return indexes
    }

    /// Files only grow, so what is there is not copied again.
    /// - Parameters:
    ///   - partition: of a file of batches, which are looked at.
    ///   - end: the offset before which its batches end.
    private func copy(
        _ path: String, _ bytes: Int64, of partition: TopicPartition?, before end: Int64, to target: any LogVolume,
        exists: Bool
    ) throws(EventLogError) -> (bytes: Int64, damaged: [DamagedRange]) {
        let from = try volume.open(path, .read)
        let into = try target.open(path, .create)
        let start = exists ? min(into.size, bytes) : 0
        var offset = start
        var passing = start < bytes ? partition.map { PassingBatches(file: path, partition: $0, end: end) } : nil
        // What is there may end within a batch.
        for at in stride(from: 0, to: passing == nil ? 0 : start, by: Int64.Stride(EmbeddedLog.copySize)) {
            passing?.pass(try into.read(at: at, count: Int(min(Int64(EmbeddedLog.copySize), start - at))))
        }
        while offset < bytes {
            let part = try from.read(at: offset, count: Int(min(Int64(EmbeddedLog.copySize), bytes - offset)))
            guard !part.isEmpty else {
                throw EventLogError(
                    "rot",
                    "\(volume.path)/\(path) ends at byte \(offset), \(bytes) are expected; run `headrace log verify`",
                    fault: .world)
            }
            try into.write(part, at: offset)
            passing?.pass(part)
            offset += Int64(part.count)
        }
        passing?.end(at: bytes)
        if into.size > bytes { try into.truncate(to: bytes) }
        try into.sync()
        return (bytes - start, passing?.damaged ?? [])
    }

    /// The manifest makes the copy valid; only then goes what it no longer names.
    private func finish(
        _ manifest: Manifest, _ mark: DurableMark, on target: any LogVolume, keep: Set<String>
    ) throws(EventLogError) {
        for partition in manifest.partitions where !partition.files.isEmpty {
            try target.syncDirectory(Manifest.directory(partition.partition))
        }
        try target.syncDirectory("")
        for name in Manifest.names { try target.replace(name, with: manifest.encoded(), durable: true) }
        try target.replace(DurableMark.path, with: mark.encoded(), durable: true)
        let content = [".wal", ".chain", ".log", ".index"]
        for path in try target.list() where content.contains(where: { path.hasSuffix($0) }) && !keep.contains(path) {
            try target.remove(path)
        }
    }

    /// Copies a backup into an empty directory and checks all of it.
    package static func restore(
        from source: any LogVolume, to target: any LogVolume
    ) throws(EventLogError) -> (report: BackupReport, verification: LogVerification) {
        try target.makeDirectory("")
        guard try target.list().allSatisfy({ $0 == "LOCK" }) else {
            throw EventLogError("not-empty", "\(target.path) is not empty; restore into a new data directory")
        }
        guard let mark = source.contents(DurableMark.path), DurableMark(mark) != nil else {
            let isData = source.contents("log/" + DurableMark.path) != nil
            throw EventLogError(
                "not-a-backup",
                isData
                    ? "\(source.path) is a data directory and no backup; make one of it with `headrace log backup`"
                    : "there is no backup in \(source.path): it has no \(DurableMark.path) that can be read")
        }
        var options = Options()
        options.readOnly = true
        let backup = try open(source, options: options)
        let report = try backup.backup(to: target)
        let restored = try open(target, options: options)
        return (report, try restored.verify())
    }
}
