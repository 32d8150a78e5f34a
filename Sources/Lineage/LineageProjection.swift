import Base
import GRDB
import RecordFormat
import Streams

package enum LineageModule {}
/// Errors of lineage.
package typealias LineageError = Failure<LineageModule>

/// Folds derived events into the index of the lineage graph: which node stands where in the log. Edges are in the events
/// themselves and are read when a graph is drawn, so a node costs one row.
package final class LineageProjection: Projection {
    package let name = "lineage"
    package let inputs = [
        "headrace.definitions", "questions.asked", "outcomes.observed", "training.requested", "training.completed",
        "models.artifacts", "models.registered", "models.deployed", "models.rejected", "predictions.served",
        "retraining.triggered",
    ]

    package init() {}

    package func prepare(_ database: Database) throws {
        try database.execute(
            sql: """
                CREATE TABLE IF NOT EXISTS lineage_nodes(
                    node TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
                    PRIMARY KEY(node, topic)
                ) STRICT, WITHOUT ROWID
                """)
    }

    package func apply(
        _ event: StoredEvent, topic: String, partition: Int, document: JSONDocument, _ database: Database
    ) throws {
        func text(_ key: JSONKey) -> String { document.member(0, key).flatMap { document.string($0) } ?? "" }
        let node: String
        switch topic {
        case "headrace.definitions": node = "definition:\(text("kind"))/\(text("name"))"
        case "questions.asked": node = "question:\(text("id"))"
        case "outcomes.observed": node = "outcome:\(text("id"))"
        case "predictions.served": node = "prediction:\(text("id"))"
        case "retraining.triggered": node = "trigger:\(text("model"))@\(text("at"))"
        case "models.artifacts": node = event.id
        default:
            let version = document.member(0, "version").flatMap { document.int($0) } ?? 0
            let kind = topic == "training.requested" || topic == "training.completed" ? "run" : "model"
            node = "\(kind):\(text("model"))@\(version)"
        }
        try database.cachedStatement(sql: "INSERT OR REPLACE INTO lineage_nodes VALUES(?, ?, ?, ?)")
            .execute(arguments: [node, topic, partition, event.offset])
    }
}
