import Base
import EventLog
import Foundation

/// What the log's files hold and whether they are whole, as JSON: the same from a running node and from a directory.
package enum LogReport {
    private static func range(_ range: Range<Int64>) -> JSON {
        .array([.int(range.lowerBound), .int(range.upperBound)])
    }

    package static func inspection(_ log: EmbeddedLog) -> JSON {
        let found = log.inspect()
        let statistics = found.statistics
        return .object([
            "events": .int(Int64(statistics.events)), "head": .string(statistics.headHash.hex),
            "movedThrough": .int(Int64(found.rewrittenThrough)), "chainFiles": .int(Int64(found.chains)),
            "writeAmplification": .double(statistics.writeAmplification),
            "segments": .array(
                found.segments.map {
                    .object([
                        "file": .string($0.path), "firstSequence": .int(Int64($0.firstSequence)),
                        "bytes": .int($0.bytes),
                    ])
                }),
            "partitions": .array(
                found.partitions.map {
                    .object([
                        "partition": .string($0.partition.description), "offsets": range($0.offsets),
                        "files": .int(Int64($0.files)), "bytes": .int($0.bytes),
                        "waitingBatches": .int(Int64($0.waiting)), "compactedThrough": .int($0.compactedThrough),
                    ])
                }),
            "pins": .array(
                found.pins.map { pin in
                    .object([
                        "name": .string(pin.name),
                        "ranges": .object(
                            Dictionary(uniqueKeysWithValues: pin.ranges.map { ($0.key.description, range($0.value)) })),
                    ])
                }),
            "recovery": recovery(found.recovery),
            "upkeep": statistics.maintenanceFailure.map { .string($0.description) } ?? .null,
        ])
    }

    package static func recovery(_ report: RecoveryReport) -> JSON {
        .object([
            "truncatedBytes": .int(report.truncatedBytes),
            "truncatedFile": report.truncatedFile.map { .string($0) } ?? .null,
            "damaged": .array(report.damaged.map { .string($0.description) }),
            "rebuilt": .array(report.rebuiltIndexes.map { .string($0) }),
            "lostIds": .array(report.lostIdentifiers.map { .string($0.description) }),
            "mark": report.mark.map { .string($0.text) } ?? .null,
            "removed": .array(report.removed.map { .string($0) }), "scannedBytes": .int(report.scannedBytes),
        ])
    }

    package static func verification(_ log: EmbeddedLog) throws -> JSON {
        var members = json(try log.verify()).object ?? [:]
        members["mark"] = log.inspect().recovery.mark.map { .string($0.text) } ?? .null
        return .object(members)
    }

    private static func json(_ check: LogVerification) -> JSON {
        .object([
            "verdict": .string(check.isIntact ? "INTACT" : "DAMAGED"), "frames": .int(Int64(check.frames)),
            "events": .int(Int64(check.events)), "bytes": .int(check.bytes), "released": .int(Int64(check.released)),
            "lostIds": .array(check.lostIdentifiers.map { .string($0.description) }),
            "unreadable": .array(check.unreadable.map { .string($0) }),
            "rebuildable": .array(check.rebuildable.map { .string($0) }),
            "head": .string(check.head.hex), "damaged": .array(check.damaged.map { .string($0.description) }),
            "rewritten": .array(
                check.rewritten.map { found in
                    let ranges = found.ranges.map {
                        "\($0.partition) \($0.offsets.lowerBound)..<\($0.offsets.upperBound)"
                    }
                    return .string("\(found.file): \(ranges.joined(separator: ", "))")
                }),
        ])
    }

    package static func order(_ log: EmbeddedLog, from: UInt64, limit: Int) throws -> JSON {
        let order = try log.order(from: from, limit: limit)
        return .object([
            "order": .array(
                order.places.map { sequence, partition, offset in
                    .object(["sequence": .int(Int64(sequence)), "position": .string("\(partition)@\(offset)")])
                }), "events": .int(Int64(order.events)), "start": .int(Int64(order.start)),
            "lost": .array(
                order.lost.map { .array([.int(Int64($0.lowerBound)), .int(Int64($0.upperBound))]) }),
        ])
    }

    /// Takes from a backup what is damaged in a log that no node has open.
    package static func heal(_ directory: String, from backup: String, dryRun: Bool) throws -> JSON {
        let report = try EmbeddedLog.heal(DiskVolume(directory), from: DiskVolume(backup), dryRun: dryRun)
        return .object([
            "healed": .array(report.healed.map { .string($0) }), "bytes": .int(report.bytes),
            "verification": json(report.verification),
        ])
    }

    /// What was repaired, or would be, and what cannot be; what opening does not look at may be damaged as well.
    /// - Parameter isRunning: a node has the log open; what its start did is not told again.
    package static func repair(_ log: EmbeddedLog, dryRun: Bool, isRunning: Bool = false) throws -> JSON {
        let before = try verification(log)["rebuildable"]?.array ?? []
        if !dryRun {
            try log.buildMissingIndexes()
            try log.maintain()
        }
        var report = recovery(log.inspect().recovery).object ?? [:]
        let after = try verification(log)
        let built = before.filter { dryRun || !(after["rebuildable"]?.array ?? []).contains($0) }
        if isRunning {
            (report["truncatedFile"], report["truncatedBytes"], report["removed"]) = (.null, 0, .array([]))
            report["rebuilt"] = .array(built)
        } else {
            let known = report["rebuilt"]?.array ?? []
            report["rebuilt"] = .array(known + built.filter { !known.contains($0) })
        }
        report["damaged"] = .array((after["damaged"]?.array ?? []) + (after["rewritten"]?.array ?? []))
        report["lostIds"] = after["lostIds"] ?? .array([])
        return .object(report)
    }

    private static func json(_ report: BackupReport) -> JSON {
        .object([
            "files": .int(Int64(report.files)), "copiedBytes": .int(report.copiedBytes),
            "totalBytes": .int(report.totalBytes), "events": .int(Int64(report.events)),
            "damaged": .array((report.damaged.map(\.description) + report.earlier).map { .string($0) }),
            "kept": .array(report.keptIdentifiers.map { .string($0) }),
        ])
    }

    private static func resolved(_ path: String) -> String {
        // What is not there yet stands where its nearest existing parent leads.
        var place = URL(filePath: path).standardizedFileURL
        var rest: [String] = []
        while !FileManager.default.fileExists(atPath: place.path), place.pathComponents.count > 1 {
            rest.insert(place.lastPathComponent, at: 0)
            place.deleteLastPathComponent()
        }
        return rest.reduce(place.resolvingSymlinksInPath()) { $0.appending(path: $1) }.path
    }

    package static func backup(_ log: EmbeddedLog, to directory: String) throws -> JSON {
        guard directory.hasPrefix("/") else {
            throw NodeError("bad-path", "a backup goes to an absolute path, not '\(directory)'")
        }
        let (own, target) = (resolved(log.volume.path), resolved(directory))
        guard target != own, !target.hasPrefix(own + "/") else {
            throw NodeError(
                "bad-path",
                "'\(directory)' is the log's own directory: a backup stands elsewhere, best on another disk")
        }
        return json(try log.backup(to: DiskVolume(directory)))
    }

    package static func restore(from backup: String, to directory: String) throws -> JSON {
        let (source, target) = (resolved(backup), resolved(directory))
        guard target != source, !target.hasPrefix(source + "/"), !source.hasPrefix(target + "/") else {
            throw NodeError(
                "bad-path", "'\(directory)' and the backup '\(backup)' stand within each other; restore it elsewhere")
        }
        let (report, check) = try EmbeddedLog.restore(from: DiskVolume(backup), to: DiskVolume(directory))
        return .object(["restored": json(report), "verification": json(check)])
    }

    package static func frames(_ directory: String, _ file: String, from: Int64, limit: Int) throws -> JSON {
        let (frames, damaged) = try EmbeddedLog.frames(of: file, on: DiskVolume(directory), from: from, limit: limit)
        return .object([
            "frames": .array(
                frames.map { frame in
                    .object([
                        "at": .int(frame.at), "bytes": .int(Int64(frame.size)),
                        "firstSequence": .int(Int64(frame.sequences.lowerBound)),
                        "events": .int(Int64(frame.sequences.count)),
                        "recorded": .string(Instant(milliseconds: frame.recordedTime).description),
                        "principal": .string(frame.principal),
                        "batches": .array(
                            frame.batches.map {
                                .string("\($0.partition) \($0.offsets.lowerBound)..<\($0.offsets.upperBound)")
                            }),
                    ])
                }), "damaged": .array(damaged.map { range($0) }),
        ])
    }
}

extension Node {
    /// The embedded log, for what only files have.
    package func files() throws -> EmbeddedLog {
        guard let embedded else {
            throw NodeError(
                "unsupported", "the log of this node is on Kafka, which has no files here; use the cluster's own tools")
        }
        return embedded
    }

    package func logInspection() throws -> JSON {
        if let kafka { return try LogReport.inspection(kafka) }
        return LogReport.inspection(try files())
    }
    package func logVerification() throws -> JSON {
        let answer = try LogReport.verification(try files())
        let found = (answer["damaged"]?.array ?? []) + (answer["rewritten"]?.array ?? [])
        damageFound.withLock { $0 = found.compactMap(\.string) }
        return answer
    }
    package func logOrder(from: Int64, limit: Int) throws -> JSON {
        try LogReport.order(try files(), from: UInt64(max(0, from)), limit: limit)
    }
    package func logRepair(dryRun: Bool) throws -> JSON {
        try LogReport.repair(try files(), dryRun: dryRun, isRunning: true)
    }
    package func logBackup(_ directory: String) throws -> JSON { try LogReport.backup(try files(), to: directory) }
}
