/** Copy a text, and say what came of it. @param {string} text @param {string} done @returns {Promise<string>} */
export async function copied(text, done) {
  const refused = "The browser did not allow it. Select the text and copy it.";
  if (!navigator.clipboard) return refused; // a page without https has none
  try {
    await navigator.clipboard.writeText(text);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    return refused;
  }
  return done;
}
