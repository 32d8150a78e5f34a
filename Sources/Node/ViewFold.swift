import Base
import Catalog
import EventLog
import Features
import Foundation
import Streams

/// A view that came into force, or changed, while the workspace's fold was running: it is folded beside that, from the
/// beginning of the log at full speed and then on as events come. One fold reads it all, so nothing is missing between the
/// two and nothing stands twice (decision 29).
package final class ViewFold: Sendable {
    let view: FeatureView
    let version: Int64
    let host: FoldHost
    private let file: String
    private let failures = Monitor(ViewFailures())
    private let ready = Monitor(false)

    /// What its stores keep in memory of what is on the disk too, in bytes: there may be many beside each other.
    private static let memory = 64 << 20
    /// Views that are folded beside the workspace at a time; each reads its topic for itself.
    static let limit = 64

    /// - Parameter directory: is there.
    init(_ view: FeatureView, version: Int64, directory: String, checkpointSeconds: Double) {
        (self.view, self.version) = (view, version)
        host = FoldHost(checkpointSeconds: checkpointSeconds)
        file = "\(directory)/\(view.name)@\(version).sqlite"
    }

    var name: String { "\(view.name)@\(version)" }

    /// - Parameters:
    ///   - workspace: what says at which version topics are read, and who writes them.
    ///   - body: of the view's definition.
    func start(log: any EventLog, _ workspace: CompiledWorkspace, body: JSON) {
        var text = body.canonical
        text += [UInt8]("\n\(view.topic) \(workspace.readings[view.topic]?.version ?? 1)".utf8)
        // Of a topic that nobody has read so far nobody said how complete it was: its events wait for one another, so that they are
        // folded in the order of their times.
        let isUnread = !workspace.foldedTopics.contains(view.topic)
        if isUnread { text += [UInt8]("\nsorted".utf8) }
        let identity = Digest.of(text)
        let sorted = isUnread ? [view.topic] : workspace.sorted.intersection([view.topic])
        host.start(log: log) { [self] in
            let stage = FeatureStage(views: [view], questions: [])
            let topology = Topology(
                name: name, stages: [stage], answers: [], attachments: [], identity: identity,
                upstream: workspace.folds.upstream(of: stage.inputs), readings: workspace.readings,
                sorted: sorted)
            let runner = try TopologyRunner(
                topology: topology, derived: [], log: log, database: try StateDatabase(path: file, memory: Self.memory),
                sink: ViewSink(failures))
            runner.recordsDigests = false
            return runner
        }
    }

    /// Looks whether it has folded everything that stood in the log when it began. What was found once holds.
    func look() -> Bool {
        if isReady { return true }
        guard (try? host.askBlocking({ $0.isAbreast })) == true else { return false }
        ready.withLock { $0 = true }
        return true
    }

    /// Whether it had caught up when somebody looked.
    var isReady: Bool { ready.withLock { $0 } }

    /// Its fold ends, and what it had on the disk goes: another version has taken its place.
    func discard() {
        host.stop()
        for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: file + suffix) }
    }

    func status(isLive: Bool) -> JSON {
        let status = host.status
        let failed = failures.withLock { $0 }
        return .object([
            "view": .string(view.name), "version": .int(version),
            "state": .string(status.failure != nil ? "failed" : isLive ? "live" : "backfilling"),
            "streamTime": Node.moment(status.now), "folded": .int(status.folded), "late": .int(status.late),
            "failures": .int(status.failures), "firstFailures": .array(failed.first.map { .string($0) }),
        ])
    }
}

/// What a view could not read, as far as it is told.
struct ViewFailures: Sendable {
    /// Failures that are named.
    private static let named = 10
    var first: [String] = []

    mutating func note(_ data: [UInt8]) {
        guard first.count < Self.named, let json = try? JSON(parsing: data) else { return }
        let place = json["position"]?.string ?? ""
        first.append("\(place): \(json["reason"]?.string ?? "")")
    }
}

/// Keeps the first failures of a view's fold. They and its late events are counted and stand in no topic: what a view that comes
/// later cannot take is told of the view, not of the event (decision 29).
private final class ViewSink: DerivedSink {
    private let failures: Monitor<ViewFailures>

    init(_ failures: Monitor<ViewFailures>) { self.failures = failures }

    func take(_ event: DerivedEvent) {
        guard event.topic == SideTopics.platform.unfolded else { return }
        failures.withLock { $0.note(event.event.data ?? []) }
    }

    func say(_ progress: DerivedEvent) {}
    func sliceEnded(_ consumed: () -> [TopicPartition: Int64]) {}
    func flush(_ consumed: () -> [TopicPartition: Int64]) {}
}
