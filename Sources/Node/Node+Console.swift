import Base
import EventLog
import Foundation
import GRDB
import RecordFormat

extension Node {
    /// Everything the console page shows, in one answer.
    package func console() throws -> JSON {
        var topics: [JSON] = []
        for topic in gateway.allTopics {
            let count = try records(of: topic)
            if count > 0 { topics.append(.object(["name": .string(topic.name), "records": .int(count)])) }
        }
        let tables = try views.read { database -> (JSON, JSON, JSON) in
            let days = try Row.fetchAll(
                database, sql: "SELECT day, auc, coverage FROM performance_days WHERE auc IS NOT NULL ORDER BY day"
            )
            .map { row in
                JSON.object(["day": .string(row[0]), "auc": .double(row[1]), "coverage": .double(row[2] ?? 0)])
            }
            let models = try Row.fetchAll(
                database,
                sql:
                    "SELECT model, version, state, requested_at, deployed_at, auc, reason FROM models ORDER BY requested_at, model, version"
            ).map { row in
                JSON.object([
                    "model": .string(row[0]), "version": .int(row[1]), "state": .string(row[2]),
                    "requestedAt": .string(row[3] ?? ""),
                    "deployedAt": (row[4] as String?).map { .string($0) } ?? .null,
                    "auc": (row[5] as Double?).map { .double($0) } ?? .null,
                    "reason": (row[6] as String?).map { .string($0) } ?? .null,
                ])
            }
            let drift = try Row.fetchAll(
                database,
                sql:
                    "SELECT feature, psi, psi_limit, day FROM drift_days WHERE day = (SELECT max(day) FROM drift_days) ORDER BY feature"
            ).map { row in
                JSON.object([
                    "feature": .string(row[0]), "psi": (row[1] as Double?).map { .double($0) } ?? .null,
                    "limit": .double(row[2] ?? 0),
                    "day": .string(row[3]),
                ])
            }
            return (.array(days), .array(models), .array(drift))
        }
        return .object([
            "status": try status(), "topics": .array(topics), "days": tables.0, "models": tables.1, "drift": tables.2,
            "recent": .array(try recent()), "at": .string(Instant.wallClock().description),
        ])
    }

    /// The newest events of the topics people watch, newest first.
    private func recent() throws -> [JSON] {
        var events: [(Instant, JSON)] = []
        for topic in [
            "predictions.served", "outcomes.observed", "models.deployed", "models.rejected", "retraining.triggered",
            "headrace.dead-letters",
        ] {
            let partition = TopicPartition(topic, 0)
            let end = try log.offsets(partition).upperBound
            try log.forEachEvent(partition, from: max(0, end - 5)) { event in
                let data =
                    try gateway.opened(event, topic: topic).map { String(decoding: $0.prefix(160), as: UTF8.self) }
                    ?? ""
                events.append(
                    (
                        event.time,
                        .object([
                            "time": .string(event.time.description), "topic": .string(topic),
                            "type": .string(event.type),
                            "id": .string(event.id), "position": .string("\(partition)@\(event.offset)"),
                            "data": .string(data),
                        ])
                    ))
                return true
            }
        }
        return events.sorted { $0.0 > $1.0 }.prefix(20).map(\.1)
    }
}
