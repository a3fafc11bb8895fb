/** Why a question has no answer, in one sentence for the visitor. */
export class AskError extends Error {}
