// Grafana's ES modules import this CommonJS package by its default, which a bundler reads as Node does: as the whole module.
export { Scrollbars as default } from './node_modules/react-custom-scrollbars-2/lib/index.js';
