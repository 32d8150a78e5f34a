import ArgumentParser
import Base
import Foundation
import Node

struct Erase: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a person's personal fields unreadable for good, everywhere in the log, by destroying their key."
    )
    @OptionGroup var common: Common
    @Argument(help: "The subject, as the topic's declaration names it.") var subject: String
    @Flag(name: .long, help: "Do not ask.") var yes = false

    func run() async throws {
        try await reporting {
            // Programs know what they do; people are asked, as nothing brings the key back.
            if !yes, isatty(STDIN_FILENO) == 1 {
                print(
                    "Everything personal of '\(subject)' becomes unreadable for good. Type the subject again: ",
                    terminator: "")
                fflush(nil)
                guard readLine() == subject else { throw NodeError("bad-use", "nothing was erased") }
            }
            let connection = try common.connection()
            defer { connection.close() }
            let body = JSON.object(["subject": .string(subject)])
            let answer = try await connection.ask("POST", "/v1/erase", body: body.canonical) { node in
                try node.erase(subject)
            }
            if common.json { return Terminal.print(answer) }
            print(
                "erased: the key \(answer["key"]?.string ?? "") is destroyed, logged at \(answer["position"]?.string ?? "")"
            )
        }
    }
}
