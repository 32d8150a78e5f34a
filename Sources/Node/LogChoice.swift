import Base
import EventLog
import Foundation
import KafkaLog

/// Which log a data directory belongs to: the embedded one in it, or a cluster that it names in `log/cluster.json`. State
/// and views are folds over that log, so a directory never changes from one to the other.
package enum LogChoice {
    private static let file = "cluster.json"

    private static func path(_ configuration: NodeConfiguration) -> String {
        configuration.logDirectory + "/" + file
    }

    /// What the directory says of its cluster; nil for an embedded log, or none yet.
    static func remembered(_ configuration: NodeConfiguration) -> JSON? {
        FileManager.default.contents(atPath: path(configuration)).flatMap { try? JSON(parsing: [UInt8]($0)) }
    }

    /// For commands that work on the embedded log's files: there are none where the log is elsewhere.
    package static func requireFiles(_ configuration: NodeConfiguration) throws {
        guard let known = remembered(configuration) else { return }
        throw NodeError(
            "unsupported",
            "the log of '\(configuration.dataDirectory)' is on Kafka at \(known["bootstrap"]?.string ?? ""), there are no files of it here"
        )
    }

    /// - Returns: the log, and what must be kept as long as it is used.
    static func open(_ configuration: NodeConfiguration) throws -> (log: any EventLog, lock: (any Sendable)?) {
        let known = remembered(configuration)
        guard let bootstrap = configuration.kafka ?? known?["bootstrap"]?.string else {
            return (try EmbeddedLog.open(configuration.logDirectory), nil)
        }
        let files = (try? FileManager.default.contentsOfDirectory(atPath: configuration.logDirectory)) ?? []
        guard known != nil || !files.contains(where: { $0.hasSuffix(".wal") || $0.hasPrefix("manifest") }) else {
            throw NodeError(
                "other-log",
                "'\(configuration.dataDirectory)' holds an embedded log; a node on Kafka needs a data directory of its own"
            )
        }
        var kafka = KafkaConfiguration(bootstrap: bootstrap)
        kafka.announce = configuration.announce
        let settings = configuration.kafkaSettings ?? known?["settings"]?.string
        if let settings { try kafka.read(file: settings) }
        try FileManager.default.createDirectory(
            atPath: configuration.logDirectory, withIntermediateDirectories: true)
        let lock = try DiskVolume(configuration.logDirectory).lock()
        // The node's own appends; each worker has a name for them, which it keeps, so that only its own next life fences it.
        let name =
            configuration.isWorker
            ? known?["writer"]?.string ?? "work-\(UUID().uuidString.prefix(8).lowercased())" : "log"
        let log = try KafkaLog.open(kafka, named: name)
        let cluster = log.clusterID
        if let before = known?["cluster"]?.string, !before.isEmpty, !cluster.isEmpty, before != cluster {
            log.close()
            throw NodeError(
                "other-log",
                "'\(configuration.dataDirectory)' was folded from the cluster '\(before)', and \(bootstrap) is '\(cluster)'; use another data directory"
            )
        }
        return (log, lock)
    }

    /// A directory that has been used needs the log it was used with: an empty one is another, or has lost its events.
    static func check(_ log: any EventLog, _ configuration: NodeConfiguration) throws {
        guard let kafka = log as? KafkaLog, remembered(configuration) != nil,
            try log.offsets(TopicPartition(DefinitionRegistry.topic, 0)).isEmpty
        else { return }
        log.close()
        throw NodeError(
            "other-log",
            "'\(configuration.dataDirectory)' was folded from a log, and the one at \(kafka.configuration.bootstrap) is empty; it is another cluster, or it has lost its events"
        )
    }

    /// Writes down which cluster the directory belongs to, once its log holds something. Names only: what the settings say
    /// stays in their own file.
    static func remember(_ log: any EventLog, _ configuration: NodeConfiguration) throws {
        guard let kafka = log as? KafkaLog else { return }
        let known = remembered(configuration)
        let cluster = kafka.clusterID
        var members: [String: JSON] = [
            "bootstrap": .string(kafka.configuration.bootstrap),
            "cluster": .string(cluster.isEmpty ? known?["cluster"]?.string ?? "" : cluster),
        ]
        if configuration.isWorker { members["writer"] = .string(kafka.name) }
        if let settings = configuration.kafkaSettings ?? known?["settings"]?.string {
            members["settings"] = .string(URL(filePath: settings).path)
        }
        try Data(JSON.object(members).canonical).write(to: URL(filePath: path(configuration)), options: .atomic)
    }
}
