import Base
import Datasets
import EventLog
import Foundation
import RecordFormat

/// The versions of datasets that there are and were, folded from the log.
struct DatasetHistory {
    static let removedType = "dataset.removed"
    /// Those that are there, oldest first.
    private(set) var manifests: [DatasetManifest] = []
    /// `NAME@VERSION` of those that were removed.
    private(set) var removed: Set<String> = []
    /// The last version's number, by name.
    private(set) var newest: [String: Int64] = [:]

    init(_ log: any EventLog) throws {
        var all: [DatasetManifest] = []
        try log.forEachEvent(TopicPartition(Node.datasets, 0), passesDoubt: true) { event in
            guard let json = event.data.flatMap({ try? JSON(parsing: $0) }) else { return true }
            if event.type == Self.removedType {
                if let reference = json["dataset"]?.string { removed.insert(reference) }
            } else if let manifest = DatasetManifest(json) {
                all.append(manifest)
                newest[manifest.name] = max(newest[manifest.name] ?? 0, manifest.version)
            }
            return true
        }
        manifests = all.filter { !removed.contains($0.reference) }
    }
}

extension Node {
    /// Takes a version away: it is logged first, then what no other version is made of is freed.
    package func removeDataset(_ reference: String) throws -> JSON {
        guard reference.contains("@") else {
            throw DatasetsError("bad-name", "name the version that is to be removed: '\(reference)@NUMBER'")
        }
        return try announcing.withLock { _ in
            let manifest = try manifest(reference)
            let pin = "dataset:\(manifest.reference)"
            guard !log.pins.contains(where: { $0.name == pin }) else {
                throw DatasetsError(
                    "pinned", "\(manifest.reference) is pinned; let it go first: headrace log unpin \(pin)")
            }
            let store = try chunkStore()
            let data = JSON.object(["dataset": .string(manifest.reference), "digest": .string(manifest.digest.hex)])
            _ = try log.append(
                LogAppend(
                    principal: "node",
                    events: [
                        (
                            Node.datasets, 0,
                            NewEvent(
                                id: "removed:\(manifest.reference)", source: "headrace:/datasets",
                                type: DatasetHistory.removedType, time: Instant.wallClock(),
                                key: [UInt8](manifest.name.utf8), data: data.canonical)
                        )
                    ]))
            var members: [String: JSON] = ["dataset": .string(manifest.reference), "freed": .int(0)]
            do {
                let swept = try sweep(store)
                members["freed"] = .int(swept.freed)
                if swept.damaged > 0 {
                    members["notice"] = .string(
                        "\(swept.damaged) files of chunks stay: a chunk in them that another version needs is damaged")
                }
            } catch {
                // The version is gone all the same; the next removal frees what this one could not.
                members["notice"] = .string(
                    "nothing was freed: \((error as? any DescribedError)?.message ?? "\(error)")")
            }
            return .object(members)
        }
    }

    private func sweep(_ store: ChunkStore) throws -> ChunkStore.Sweep {
        var wanted: Set<Digest> = []
        for manifest in try manifests() { wanted.formUnion(try store.references(of: manifest)) }
        return try store.sweep(keeping: wanted)
    }
}
