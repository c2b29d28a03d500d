// ~/.config/opencode/plugins/mcp-bus.js
const COMMAND = ["mcp-bus"]

export const McpBus = async ({ directory }) => {
  const primers = new Map()
  const compacted = new Set()
  const hook = async (event, session) => {
    const said = JSON.stringify({ hook_event_name: event, session_id: session, cwd: directory })
    const child = Bun.spawn([...COMMAND, "hook", "opencode", event], { stdin: Buffer.from(said), stderr: "ignore" })
    return (await new Response(child.stdout).text()).trim()
  }
  return {
    "experimental.chat.system.transform": async ({ sessionID }, { system }) => {
      if (!sessionID) return
      const known = primers.has(sessionID)
      if (!known && compacted.delete(sessionID)) primers.set(sessionID, await hook("session.compacted", sessionID))
      else if (!known) primers.set(sessionID, await hook("session.created", sessionID))
      const news = known ? await hook("chat.message", sessionID) : ""
      system.push(...[primers.get(sessionID), news].filter(Boolean))
    },
    "tool.execute.after": async ({ sessionID }, output) => {
      const news = await hook("tool.execute.after", sessionID)
      if (!news) return
      if (Array.isArray(output.content)) output.content.push({ type: "text", text: news })
      else output.output += `\n\n${news}`
    },
    "experimental.session.compacting": async ({ sessionID }) => {
      if (primers.delete(sessionID)) compacted.add(sessionID)
    },
  }
}
