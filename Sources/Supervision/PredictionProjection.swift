import Base
import GRDB
import RecordFormat
import Streams

/// The table `predictions`: one row a question, with its prediction and its truth once they are there. Topics are folded
/// one after the other, so every statement takes a row that may or may not exist.
package final class PredictionProjection: Projection {
    package let name = "predictions"
    package let inputs = ["questions.asked", "predictions.served", "outcomes.observed"]

    package init() {}

    package func prepare(_ database: Database) throws {
        try database.execute(
            sql: """
                CREATE TABLE IF NOT EXISTS predictions(
                    question TEXT NOT NULL, id TEXT NOT NULL, asked_at INTEGER NOT NULL, report_month TEXT NOT NULL,
                    model TEXT, version INTEGER, score REAL, first_score REAL, label INTEGER, value REAL, truth_at INTEGER,
                    PRIMARY KEY(question, id)
                ) STRICT, WITHOUT ROWID
                """)
    }

    package func apply(
        _ event: StoredEvent, topic: String, partition: Int, document: JSONDocument, _ database: Database
    ) throws {
        func text(_ key: JSONKey) -> String? { document.member(0, key).flatMap { document.string($0) } }
        func number(_ key: JSONKey) -> Double? { document.member(0, key).flatMap { document.double($0) } }
        guard let question = text("question"), let id = text("id"),
            let askedAt = text("askedAt").flatMap({ Instant($0) })
        else { return }
        let month = String((text("reportAt") ?? "").prefix(7))
        switch topic {
        case "questions.asked":
            try database.cachedStatement(
                sql:
                    "INSERT INTO predictions(question, id, asked_at, report_month) VALUES(?, ?, ?, ?) ON CONFLICT DO NOTHING"
            ).execute(arguments: [question, id, askedAt.milliseconds, month])
        case "predictions.served":
            try database.cachedStatement(
                sql: """
                    INSERT INTO predictions(question, id, asked_at, report_month, model, version, score, first_score)
                    VALUES(?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET model = excluded.model,
                    version = excluded.version, score = excluded.score, first_score = excluded.first_score
                    """
            ).execute(arguments: [
                question, id, askedAt.milliseconds, month, text("model"), number("version").map { Int64($0) },
                number("score"),
                number("firstScore"),
            ])
        default:
            guard let label = document.member(0, "label").flatMap({ document.bool($0) }) else { return }
            try database.cachedStatement(
                sql: """
                    INSERT INTO predictions(question, id, asked_at, report_month, label, value, truth_at)
                    VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET label = excluded.label, value = excluded.value,
                    truth_at = excluded.truth_at
                    """
            ).execute(arguments: [
                question, id, askedAt.milliseconds, month, label ? 1 : 0, number("value"), event.time.milliseconds,
            ])
        }
    }
}
